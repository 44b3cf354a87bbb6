"""Name a file by its first bytes: never by its extension, never by what a client claims."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 512

_IMAGES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_OTHERS = {
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"\x00\x00\x01\x00": "ICO",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"#EXTM3U": "HLS playlist",
    b"ffconcat": "ffconcat playlist",
    b"FLV\x01": "FLV",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"ID3": "MP3",
}
_RIFF = {b"WEBP": "WebP", b"WAVE": "WAV", b"AVI ": "AVI"}
_STILL_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
_MOV_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_DRAWN_TEXT = {b"<svg": "SVG", b"<!doctype html": "HTML", b"<html": "HTML"}


def read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def sniff(head: bytes) -> str:
    """Return a short name for what begins like this: ``PNG``, ``MP4``, ``text``, ``an empty file``..."""
    if not head:
        return "an empty file"
    for start, name in (_IMAGES | _OTHERS).items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return _STILL_BRANDS.get(brand, "MOV" if brand == b"qt  " else "M4A" if brand == b"M4A " else "MP4")
    if head[4:8] in _MOV_BOXES:
        return "MOV"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "WebM" if b"webm" in head[:64] else "MKV"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return "MP3"
    return _name_text(head)


def _name_text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _DRAWN_TEXT.items():
        if start.startswith(mark):
            return name
    text = head.decode("utf-8", errors="ignore")  # a character may be cut at the end
    is_text = len(text.encode()) > len(head) - 4 and all(c.isprintable() or c in "\t\r\n" for c in text)
    if is_text and start.startswith(b"<?xml") and b"<svg" in start:
        return "SVG"
    return "text" if is_text else "an unknown kind of data"
