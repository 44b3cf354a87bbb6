#!/usr/bin/env python3
"""Sets Mediagate up in a checkout and runs it: ``python3 dev.py up``, ``test``, ``tour`` or ``faults``.

Needs Python 3.11 and nothing else. Everything is installed into ``.venv`` (MEDIAGATE_VENV names another folder) from
the hash-locked requirements, and only when those changed. Arguments after the command are passed on.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OLDEST = (3, 11)
if sys.version_info < OLDEST:  # before anything that an older Python does not understand
    sys.exit("Mediagate needs Python 3.11 or newer, and this is %d.%d." % sys.version_info[:2])  # noqa: UP031
if os.name != "posix":
    sys.exit("Mediagate runs on Linux and macOS; on Windows use WSL2, or docker compose.")

import fcntl  # noqa: E402 - Windows has none

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("MEDIAGATE_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "mediagate.json"
RUNTIME, DEVELOPMENT, UV = "requirements-embedded.lock", "requirements-dev.lock", "requirements-uv.lock"
MOST_TEST_PROCESSES = 4
TEST_SETTINGS = ("MEDIAGATE_CHROMIUM", "MEDIAGATE_ARTEFACTS")
NPM_S = 120
APT_S = 900
CHROMIUM = ("chromium", "fonts-wqy-microhei")
NO_CHROMIUM = (
    "the browser's tests need Chromium: as root on Debian this command installs it (apt-get install chromium "
    "fonts-wqy-microhei); elsewhere install it and name its program in MEDIAGATE_CHROMIUM."
)
OWN_PROCESSES = ("-n", "--numprocesses", "-p", "--pdb", "--dist")  # the caller decides how pytest is split
COMMANDS = {
    "up": "start everything: PostgreSQL, Valkey, API, worker  (--port, --data)",
    "test": "run the tests  (pytest's arguments; --browser: those of the console's pages, in Chromium)",
    "faults": "kill, cut off and lie to a gateway, and check its books  (--quick, --full, --only, --seed, --list)",
    "tour": "make an image, an edit and a video, and show what each cost  (--port, --data, --out)",
}
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}
"""uv does not read pip's settings, and a machine behind a mirror often has only those."""


class SetupFailed(Exception):
    """The set-up cannot go on; the message is one sentence for its reader."""


def main(arguments: list[str]) -> int:
    """Set up, then become the command, so that signals reach it directly."""
    if not arguments or arguments[0] not in COMMANDS:
        print("usage: python3 dev.py COMMAND [ARGUMENTS]\n")
        print("\n".join(f"  {name:<6} {text}" for name, text in COMMANDS.items()))
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command, rest = arguments[0], arguments[1:]
    try:
        with one_at_a_time():
            set_up(DEVELOPMENT if command in ("test", "faults") else RUNTIME)
            if command == "test":
                install_node_sdk(ROOT / "tests" / "node")
            if command == "test" and "--browser" in rest:
                find_or_install_chromium()
    except SetupFailed as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev.py: stopped; the next start goes on from here.", file=sys.stderr)
        return 130
    if command == "test":
        become(test_command(rest), folder=ROOT, env=without_settings(os.environ))
    if command == "faults":
        become([str(PYTHON), "-m", "tests.faults.run", *rest], folder=ROOT, env=without_settings(os.environ))
    paths = {"MEDIAGATE_CONFIG_DIR": str(ROOT / "config"), "MEDIAGATE_DATA": str(ROOT / "data")}
    become([str(VENV / "bin" / "mediagate"), command, *rest], folder=Path.cwd(), env={**paths, **os.environ})
    return 0


def test_command(arguments: list[str]) -> list[str]:
    """Return pytest's command: a process more than there are cores, at most four, unless the caller says otherwise.

    Tests wait for each other's processes a third of their time.
    """
    own = any(argument.startswith(OWN_PROCESSES) for argument in arguments)
    split = [] if own else ["-n", str(test_processes()), "--dist", "worksteal"]
    return [str(PYTHON), "-m", "pytest", *split, *arguments]


def test_processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, MOST_TEST_PROCESSES)


def without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """A developer's own settings are not the tests', but for those that are about tests."""
    return {name: value for name, value in env.items() if name in TEST_SETTINGS or not name.startswith("MEDIAGATE_")}


def become(argv: list[str], *, folder: Path, env: dict[str, str]) -> None:
    sys.stdout.flush()
    os.chdir(folder)
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is wanted


# --- set-up ---------------------------------------------------------------------------------------------------------


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let two dev.py in one checkout take turns with the set-up. This file itself is the lock: nothing is left over."""
    with open(__file__) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another dev.py in this folder to finish its set-up ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_up(lock: str) -> None:
    """Bring the environment to ``lock``, doing only what is missing. Raises: SetupFailed."""
    stamp = find_stamp()
    if stamp is None:
        make_venv()
        stamp = new_stamp()
        write_stamp(stamp)
    wanted, project = digest(ROOT / lock), digest(ROOT / "pyproject.toml")
    if stamp["locks"].get(lock) != wanted:
        with step(f"Installing {lock}"):
            install("--require-hashes", "-r", str(ROOT / lock))
        stamp["locks"][lock] = wanted
        write_stamp(stamp)  # after the work: what was cut off is done again
    if stamp["project"] != project:
        with step("Installing Mediagate itself (editable)"):
            install("--no-deps", "--no-build-isolation", "-e", str(ROOT))
        stamp["project"] = project
        write_stamp(stamp)


def install_node_sdk(folder: Path) -> None:
    """Install what the tests of the Node SDK need, if Node is here. They are skipped without it: nothing is raised."""
    npm, lock, installed = shutil.which("npm"), folder / "package-lock.json", folder / "node_modules/.package-lock.json"
    if npm is None or (installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime):
        return
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]  # no network: known within seconds
    with step("Installing the Node SDK for its tests"):
        try:
            done = subprocess.run(
                [npm, "ci", "--prefix", str(folder), *options],
                capture_output=True,
                text=True,
                timeout=NPM_S,
                check=False,
            )
            problem = done.stderr.strip().splitlines()[:1] if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = [f"nothing after {NPM_S} s"]
    if problem is not None:
        say(f"npm could not install it, so its tests are skipped ({' '.join(problem)}).")


def find_or_install_chromium() -> None:
    """See to it that the browser's tests have a browser. Raises: SetupFailed."""
    named = os.environ.get("MEDIAGATE_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            raise SetupFailed(f"MEDIAGATE_CHROMIUM names {named}, which is no program that can be run.")
        return
    if find_chromium() is not None:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0 or not is_debian():
        raise SetupFailed(NO_CHROMIUM)
    with step(f"Installing {' and '.join(CHROMIUM)}"):
        options = [
            "-qq",
            "-o",
            "Acquire::Retries=2",
            "-o",
            "Acquire::http::Timeout=30",
            "-o",
            "DPkg::Lock::Timeout=120",
        ]
        install = [apt, "install", *options, "--yes", "--no-install-recommends", *CHROMIUM]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # A machine without package lists, or with old ones, needs those first.
        done = any(
            all(call(command, env=env, timeout_s=APT_S) for command in commands)
            for commands in ([install], [[apt, "update", *options], install])
        )
    if not done or find_chromium() is None:
        raise SetupFailed(f"apt-get could not install Chromium; its reason is above. {NO_CHROMIUM.capitalize()}")


def find_chromium() -> str | None:
    return shutil.which("chromium", path=f"/usr/bin:{os.environ.get('PATH', '')}")


def is_debian(release: Path = Path("/etc/os-release")) -> bool:
    """Ubuntu is not meant: its package of this name is another way to get a snap, which no container can run."""
    return release.exists() and "ID=debian" in release.read_text().splitlines()


def find_stamp() -> dict[str, Any] | None:
    """Return what is installed, or None when the environment is missing, moved, broken, or of another Python.

    An environment that works but that we did not make is taken over as it is.
    """
    if not is_usable():
        return None
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        stamp = new_stamp()
    return stamp if stamp["folder"] == str(VENV) else None  # a moved one is full of wrong paths


def new_stamp() -> dict[str, Any]:
    return {"folder": str(VENV), "project": "", "locks": {}}


def is_usable() -> bool:
    """Whether the environment's Python runs, is as new as this one, and something can install into it."""
    if not PYTHON.exists():
        return False
    asked = [str(PYTHON), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return answer.stdout.strip() == python_version() and (has_pip() or find_ready_uv() is not None)


def write_stamp(stamp: dict[str, Any]) -> None:
    new = STAMP.with_suffix(".new")
    new.write_text(json.dumps(stamp, indent=1) + "\n")
    new.replace(STAMP)


def make_venv() -> None:
    """Make the environment anew. Raises: SetupFailed."""
    if VENV.exists():
        if VENV.name != ".venv" and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
            raise SetupFailed(f"{VENV} is not a virtual environment: choose another folder with MEDIAGATE_VENV.")
        say(f"Removing {VENV}: it is unfinished, was moved, or belongs to another Python.")
        shutil.rmtree(VENV)
    base = getattr(sys, "_base_executable", None) or sys.executable
    uv = shutil.which("uv")
    with step(f"Making {VENV} with Python {python_version()}"):
        if uv is not None and call([uv, "venv", "--quiet", "--python", base, str(VENV)]):
            return
        if importlib.util.find_spec("ensurepip") is None:
            raise SetupFailed(
                "this Python cannot make virtual environments (it lacks ensurepip): install your system's python3-venv "
                "package (Debian, Ubuntu: apt install python3-venv), or put uv on PATH."
            )
        shutil.rmtree(VENV, ignore_errors=True)
        if not call([base, "-m", "venv", str(VENV)]):
            raise SetupFailed(f"'{base} -m venv {VENV}' failed; its message is above.")


def install(*arguments: str) -> None:
    """Install with uv, else with pip. Raises: SetupFailed."""
    uv = find_uv()
    if uv is not None:
        if call(
            [uv, "pip", "install", "--python", str(PYTHON), "--compile-bytecode", *arguments], env=uv_environment()
        ):
            return
        say("uv could not do it; trying pip.")
    if not has_pip() or not call([str(PYTHON), "-m", "pip", "install", *arguments], env=pip_environment()):
        raise SetupFailed(
            "installing failed; the reason is above. Packages come from where your pip or uv is set up to get them; "
            "musl systems (Alpine) have no wheels for the embedded servers: use docker compose there."
        )


@functools.cache
def find_uv() -> str | None:
    """Return uv, which is many times faster than pip; where there is none, pip puts one into the environment."""
    found = find_ready_uv()
    if found is not None:
        return found
    with step("Installing uv into the environment"):
        call(
            [str(PYTHON), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(ROOT / UV)],
            env=pip_environment(),
        )
    found = find_ready_uv()
    if found is None:
        say("uv could not be installed; pip does it, and takes longer.")
    return found


def find_ready_uv() -> str | None:
    inside = VENV / "bin" / "uv"
    return shutil.which("uv") or (str(inside) if inside.exists() else None)


def pip_environment() -> dict[str, str]:
    """Our environment without what would make pip install elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def uv_environment() -> dict[str, str]:
    """Our environment for uv, told where pip is set up to get its packages unless uv is set up itself."""
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    if any(
        name in env for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX")
    ):
        return env
    for name, value in pip_settings().items():
        if name in PIP_TO_UV:
            separator = "," if name == "find-links" else " "
            env.setdefault(PIP_TO_UV[name], separator.join(value.split()))
    # As pip: the best version of all places. The hashes say what is right.
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def pip_settings() -> dict[str, str]:
    """Return pip's own settings by name; later sections win, as they do for pip."""
    python = str(PYTHON) if has_pip() else sys.executable
    said = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    rank = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in said.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in rank and value.startswith(("'", '"')) and rank[section] >= found.get(name, (0, ""))[0]:
            found[name] = rank[section], ast.literal_eval(value)
    return {name: value for name, (_, value) in found.items()}


def has_pip() -> bool:
    asked = [str(PYTHON), "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"]
    return subprocess.run(asked, check=False).returncode == 0


def call(command: list[str], *, env: dict[str, str] | None = None, timeout_s: float | None = None) -> bool:
    """Run a command whose output the reader sees; return whether it went well, and in time."""
    sys.stdout.flush()
    try:
        return subprocess.run(command, env=env, cwd=ROOT, check=False, timeout=timeout_s).returncode == 0
    except subprocess.TimeoutExpired:
        say(f"{command[0]} was not done after {timeout_s:.0f} s.")
        return False


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_version() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def say(text: str) -> None:
    print(f"dev.py: {text}", flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    say(f"{text} ...")
    started = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
