"""``dev.py``: sets up only what is missing, says what it cannot do, and hands over."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.embedded.owners import eventually

DEV = Path(__file__).parents[2] / "dev.py"
BASE = getattr(sys, "_base_executable", sys.executable)
FAKE_UV = f"""#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
if [ -e "$(dirname "$0")/broken" ]; then exit 1; fi
if [ "$1" = venv ]; then for last; do :; done; exec {BASE} -m venv --without-pip "$last"; fi
"""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bin_folder(tmp_path, monkeypatch) -> Path:
    """The one folder on PATH, with a uv that writes down what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uv").write_text(FAKE_UV)
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("MEDIAGATE_VENV", raising=False)
    return folder


@pytest.fixture
def dev(tmp_path, bin_folder) -> ModuleType:
    """dev.py in a checkout of its own."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(DEV, checkout)
    for name in ("requirements-embedded.lock", "requirements-dev.lock", "pyproject.toml"):
        (checkout / name).write_text(f"# {name}\n")
    return load(checkout / "dev.py")


def calls(bin_folder: Path) -> list[str]:
    """What uv was asked since the last look, without paths."""
    log = bin_folder / "calls"
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [
        "venv" if call.startswith("venv") else "project" if " -e " in call else Path(call.split()[-1]).name
        for call in found
    ]


def test_the_first_set_up_does_everything_and_the_second_nothing(dev, bin_folder):
    dev.set_up(dev.RUNTIME)
    first = calls(bin_folder)

    dev.set_up(dev.RUNTIME)

    assert first == ["venv", "requirements-embedded.lock", "project"]
    assert calls(bin_folder) == []


def test_each_lock_is_installed_when_it_is_needed_and_again_when_it_changed(dev, bin_folder):
    dev.set_up(dev.RUNTIME)
    calls(bin_folder)

    dev.set_up(dev.DEVELOPMENT)
    assert calls(bin_folder) == ["requirements-dev.lock"]

    (dev.ROOT / dev.RUNTIME).write_text("# changed\n")
    dev.set_up(dev.DEVELOPMENT)
    assert calls(bin_folder) == []
    dev.set_up(dev.RUNTIME)
    assert calls(bin_folder) == ["requirements-embedded.lock"]


def test_a_changed_project_file_installs_the_project_again(dev, bin_folder):
    dev.set_up(dev.RUNTIME)
    calls(bin_folder)

    (dev.ROOT / "pyproject.toml").write_text("# changed\n")
    dev.set_up(dev.RUNTIME)

    assert calls(bin_folder) == ["project"]


def test_an_installation_that_was_cut_off_goes_on_where_it_stopped(dev, bin_folder, capfd):
    dev.make_venv()
    (bin_folder / "broken").touch()
    with pytest.raises(dev.SetupFailed, match="installing failed; the reason is above"):
        dev.set_up(dev.RUNTIME)
    (bin_folder / "broken").unlink()
    calls(bin_folder)

    dev.set_up(dev.RUNTIME)

    assert calls(bin_folder) == ["requirements-embedded.lock", "project"]
    assert "uv could not do it; trying pip." in capfd.readouterr().out


def test_an_environment_that_works_is_taken_over(dev, bin_folder):
    dev.make_venv()
    mark = dev.VENV / "mark"
    mark.touch()
    calls(bin_folder)

    dev.set_up(dev.RUNTIME)

    assert calls(bin_folder) == ["requirements-embedded.lock", "project"]
    assert mark.exists()


@pytest.mark.parametrize("how", ["moved", "broken", "of another Python"])
def test_an_environment_that_does_not_work_is_made_anew(dev, bin_folder, monkeypatch, how):
    dev.set_up(dev.RUNTIME)
    calls(bin_folder)
    if how == "moved":
        dev.STAMP.write_text(json.dumps({**json.loads(dev.STAMP.read_text()), "folder": "/elsewhere"}))
    elif how == "broken":
        dev.PYTHON.unlink()
    else:
        monkeypatch.setattr(dev, "python_version", lambda: "3.99")

    dev.set_up(dev.RUNTIME)

    assert calls(bin_folder) == ["venv", "requirements-embedded.lock", "project"]


def test_a_folder_that_is_no_environment_is_never_removed(tmp_path, dev, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    monkeypatch.setenv("MEDIAGATE_VENV", str(photos))
    dev = load(dev.ROOT / "dev.py")

    with pytest.raises(dev.SetupFailed, match="choose another folder with MEDIAGATE_VENV"):
        dev.set_up(dev.RUNTIME)
    assert (photos / "holiday.jpg").exists()


def test_a_python_without_ensurepip_and_no_uv_is_told_what_to_install(dev, bin_folder, monkeypatch):
    (bin_folder / "uv").unlink()
    monkeypatch.setattr(dev.shutil, "which", lambda name: None)
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(dev.SetupFailed, match=r"lacks ensurepip.*python3-venv.*or put uv on PATH"):
        dev.set_up(dev.RUNTIME)


FAKE_NPM = """#!/bin/sh
echo "$1 $2" >> "$(dirname "$0")/calls"
if [ -e "$(dirname "$0")/broken" ]; then echo "npm error code ECONNREFUSED" >&2; echo "more" >&2; exit 1; fi
mkdir -p "$3/node_modules" && touch "$3/node_modules/.package-lock.json"
"""


@pytest.fixture
def node_folder(tmp_path, bin_folder) -> Path:
    """A folder with npm's lock; npm itself only writes down what it is asked."""
    (bin_folder / "npm").write_text(FAKE_NPM)
    (bin_folder / "npm").chmod(0o755)
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "package-lock.json").touch()
    return folder


def test_the_node_sdk_is_installed_once_and_again_when_its_lock_is_newer(dev, bin_folder, node_folder):
    for _ in range(2):
        dev.install_node_sdk(node_folder)
    once = (bin_folder / "calls").read_text()
    os.utime(node_folder / "node_modules" / ".package-lock.json", (0, 0))
    dev.install_node_sdk(node_folder)

    assert once == "ci --prefix\n"
    assert (bin_folder / "calls").read_text() == once * 2


def test_npm_that_fails_is_a_sentence_and_no_npm_is_none(dev, bin_folder, node_folder, capfd):
    (bin_folder / "broken").touch()
    dev.install_node_sdk(node_folder)
    failed = capfd.readouterr().out.splitlines()
    (bin_folder / "npm").unlink()
    dev.shutil = SimpleNamespace(which=lambda _: None)
    dev.install_node_sdk(node_folder)

    assert failed[-1] == ("dev.py: npm could not install it, so its tests are skipped (npm error code ECONNREFUSED).")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("version", [(3, 6), (3, 10)])
def test_an_older_python_gets_one_clear_sentence(version):
    pretend = f"import runpy, sys; sys.version_info = {(*version, 0)}; sys.argv = ['dev.py', 'up']; "

    done = subprocess.run(
        [sys.executable, "-c", f"{pretend} runpy.run_path({str(DEV)!r}, run_name='__main__')"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == f"Mediagate needs Python 3.11 or newer, and this is {version[0]}.{version[1]}.\n"


def test_two_at_once_take_turns(dev, capfd):
    entered = threading.Event()

    def second() -> None:
        with dev.one_at_a_time():
            entered.set()

    with open(dev.__file__) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        said = ""

        def waits() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "Waiting for another dev.py" in said

        eventually(waits)
        assert not entered.is_set()
    thread.join(timeout=60)
    assert entered.is_set()


def test_pips_settings_are_passed_on_to_uv_and_its_own_come_first(dev, monkeypatch):
    settings = {"extra-index-url": "https://a.example\nhttps://b.example", "cert": "/ca.pem", "find-links": "/w /x"}
    monkeypatch.setattr(dev, "pip_settings", lambda: settings)
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)

    told = dev.uv_environment()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine.example")
    mine = dev.uv_environment()

    assert told["UV_INDEX"] == "https://a.example https://b.example"
    assert told["UV_FIND_LINKS"] == "/w,/x"
    assert told["SSL_CERT_FILE"] == "/ca.pem"
    assert told["UV_PYTHON_DOWNLOADS"] == mine["UV_PYTHON_DOWNLOADS"] == "never"
    assert "UV_INDEX" not in mine


def test_pips_own_words_are_read(dev, monkeypatch):
    said = "global.cert='/a.pem'\nglobal.index-url='https://a.example'\n:env:.cert='/b.pem'\nnot a setting\n"
    monkeypatch.setattr(dev.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=said))

    assert dev.pip_settings() == {"cert": "/b.pem", "index-url": "https://a.example"}


@pytest.mark.parametrize("arguments", [["-n", "0"], ["-n4"], ["-p", "no:xdist"], ["--numprocesses=2"]])
def test_the_caller_decides_in_how_many_processes_tests_run(dev, arguments):
    assert dev.test_command(arguments) == [str(dev.PYTHON), "-m", "pytest", *arguments]


@pytest.mark.parametrize(("cores", "processes"), [(1, "2"), (2, "3"), (64, "4")])
def test_tests_run_in_a_process_more_than_there_are_cores_at_most_four(dev, monkeypatch, cores, processes):
    monkeypatch.setattr(dev.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)

    assert dev.test_command(["tests/unit"])[3:] == ["-n", processes, "--dist", "worksteal", "tests/unit"]


def test_tests_do_not_see_a_developers_settings_but_those_of_tests(dev):
    seen = dev.without_settings({"MEDIAGATE_PORT": "1", "PATH": "/bin", "MEDIAGATE_CHROMIUM": "/c"})

    assert seen == {"PATH": "/bin", "MEDIAGATE_CHROMIUM": "/c"}


FAKE_APT = """#!/bin/sh
cd "$(dirname "$0")"
echo "$1" >> calls
if [ "$1" = update ]; then touch lists; elif [ -e lists ]; then touch chromium; chmod +x chromium; else exit 100; fi
"""


@pytest.fixture
def debian(dev, bin_folder, monkeypatch) -> Path:
    """A Debian without a browser, on which we are root; its apt-get has no package lists yet."""
    (bin_folder / "apt-get").write_text(FAKE_APT)
    (bin_folder / "apt-get").chmod(0o755)
    monkeypatch.setattr(dev.shutil, "which", lambda name, path=None: _found(bin_folder / name))
    monkeypatch.setattr(dev.os, "geteuid", lambda: 0)
    monkeypatch.setattr(dev, "is_debian", lambda: True)
    monkeypatch.delenv("MEDIAGATE_CHROMIUM", raising=False)
    return bin_folder


def _found(path: Path) -> str | None:
    return str(path) if path.exists() else None


def test_a_browser_is_installed_where_that_can_be_done_and_once(dev, debian):
    for _ in range(2):
        dev.find_or_install_chromium()

    assert (debian / "calls").read_text().split() == ["install", "update", "install"]


@pytest.mark.parametrize("lacks", ["root", "debian", "apt-get"])
def test_where_no_browser_can_be_installed_one_sentence_says_how_to_get_it(dev, debian, monkeypatch, lacks):
    if lacks == "apt-get":
        (debian / "apt-get").unlink()
    monkeypatch.setattr(dev.os, "geteuid", lambda: 1000 if lacks == "root" else 0)
    monkeypatch.setattr(dev, "is_debian", lambda: lacks != "debian")

    with pytest.raises(dev.SetupFailed, match=r"the browser's tests need Chromium: .* MEDIAGATE_CHROMIUM"):
        dev.find_or_install_chromium()


def test_a_browser_that_is_named_must_be_one(dev, debian, monkeypatch):
    monkeypatch.setenv("MEDIAGATE_CHROMIUM", str(debian / "uv"))
    dev.find_or_install_chromium()
    monkeypatch.setenv("MEDIAGATE_CHROMIUM", str(debian / "nothing"))

    with pytest.raises(dev.SetupFailed, match=r"MEDIAGATE_CHROMIUM names .*nothing, which is no program"):
        dev.find_or_install_chromium()
    assert not (debian / "calls").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [('NAME="Debian"\nID=debian\n', True), ("ID=ubuntu\nID_LIKE=debian\n", False)]
)
def test_ubuntu_is_no_debian(dev, tmp_path, text, expected):
    (tmp_path / "os-release").write_text(text)

    assert dev.is_debian(tmp_path / "os-release") is expected


def test_faults_runs_the_matrix_in_the_development_environment(dev, monkeypatch):
    installed, became = [], []
    monkeypatch.setattr(dev, "set_up", installed.append)
    monkeypatch.setattr(dev, "become", lambda argv, **_: became.append(argv) or sys.exit(0))

    with pytest.raises(SystemExit):
        dev.main(["faults", "--full", "--seed", "7"])

    assert installed == [dev.DEVELOPMENT]
    assert became == [[str(dev.PYTHON), "-m", "tests.faults.run", "--full", "--seed", "7"]]


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["fly"], 2), (["--help"], 0)])
def test_without_a_command_it_names_them(dev, capsys, arguments, status):
    assert dev.main(arguments) == status
    assert "tour" in capsys.readouterr().out
