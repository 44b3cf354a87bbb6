"""What lies in ``<data>/``: secrets made up at the first start, first keys, and the servers of a gateway that runs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRETS_FILE = "secrets.json"
SECRETS = ("key_pepper", "link_secret", "secrets_key")
"""Made at the first start in development, demanded in production."""


def instance_file(data: Path) -> Path:
    """What ``mediagate up`` writes while it runs: the addresses of its servers (mode 0600)."""
    return data / "instance.json"


def credentials_file(data: Path) -> Path:
    """The first keys, kept for their owner (mode 0600)."""
    return data / "credentials.json"


def write_private(path: Path, value: object) -> None:
    """Write JSON that only we may read, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def kept_secrets(data: Path) -> dict[str, str]:
    """Return the secrets this data folder was given at its first start, with any that an older version did not know."""
    path = data / SECRETS_FILE
    kept = read_secrets(path)
    if kept.keys() >= set(SECRETS):
        return kept
    data.mkdir(parents=True, exist_ok=True)
    with _only_one(data):
        kept = {name: secrets.token_urlsafe(48) for name in SECRETS} | read_secrets(path)
        write_private(path, kept)
    return kept


def read_secrets(path: Path) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return kept


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process in at a time: two that start together must not each make up a key."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
