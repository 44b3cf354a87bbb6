"""Five times the load the gateway can take, for a minute: what do those that are let in get, and those that are not?

Starts PostgreSQL and Valkey (the embedded ones, durable), one real API process, one worker and a mock upstream that
takes 200 ms; measures the capacity in a closed loop, then 0.8 of it, then 5 times it in an open loop, then 0.8 again.
Everything runs on this machine, the generator too: read the ratios of one run, not its milliseconds. About 2.5 minutes.

    python -m bench.overload [--over 60] [--base 20] [--connections 64] [--profile FILE] [NAME=VALUE of a setting ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from app.credits.ledger import Ledger
from app.db import make_engine
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import launch_command
from app.embedded.valkey import EmbeddedValkey
from app.migrate import migrate
from app.values import Credits
from bench.load import Hit, Load, quantile
from tests.factories import PEPPER, SECRETS_KEY, make_account, make_key

ROOT = Path(__file__).parents[1]
CREDITS = 10_000_000
MANY = 100_000
READY_S = 60.0
CALM_S = 1.0
ONSET_S = 2.0


@contextmanager
def child(arguments: list[str], environment: dict[str, str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(launch_command([sys.executable, *arguments]), cwd=ROOT, env=environment, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_config(folder: Path, upstream_port: int) -> Path:
    """Route ``gpt-image-2`` to the mock; the other models to the demo."""
    config = folder / "config"
    config.mkdir()
    models = (ROOT / "config" / "models.yaml").read_text()
    kept = re.sub(r"^ +- \{upstream: (?!demo\b|openai\b).*\n", "", models, flags=re.MULTILINE)
    (config / "models.yaml").write_text(kept)
    mock = (
        f"provider: openai, base_url: 'http://127.0.0.1:{upstream_port}/v1', secret_env: BENCH_KEY, concurrency: 10000"
    )
    (config / "upstreams.yaml").write_text(
        f"upstreams:\n  openai: {{{mock}}}\n  demo: {{provider: demo, concurrency: 8}}\n"
    )
    return config


async def make_secret(database_url: str) -> str:
    """Make an account with all the credits and places it could want; return a key of its."""
    await migrate(database_url)
    engine = make_engine(database_url, pool_size=1)
    try:
        account = await make_account(engine, credits=0, max_in_flight=MANY)
        await Ledger(engine).top_up(account.id, Credits(CREDITS), ref="bench", actor="bench")
        return (await make_key(engine, account)).secret
    finally:
        await engine.dispose()


def request_bytes(port: int, secret: str) -> bytes:
    body = json.dumps({"model": "gpt-image-2", "prompt": "a red fox in the snow", "size": "1024x1024"}).encode()
    head = (
        "POST /v1/images/generations HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        f"authorization: Bearer {secret}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    return "\r\n".join((*head, "", "")).encode() + body


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(name: str, hits: list[Hit], seconds: float) -> str:
    ok = [hit.took_s * 1000 for hit in hits if hit.is_ok]
    shed = [hit.took_s * 1000 for hit in hits if hit.is_shed]
    other = len(hits) - len(ok) - len(shed)
    shares = f"{len(shed) / max(len(hits), 1):.0%}"
    shed_text = f"{quantile(shed, 0.5):.0f} / {quantile(shed, 0.99):.0f}" if shed else "-"
    return (
        f"| {name} | {len(hits) / seconds:.0f} | {len(ok) / seconds:.0f} | {quantile(ok, 0.5):.0f} "
        f"| {quantile(ok, 0.99):.0f} | {shares} | {shed_text} | {other} |"
    )


def recovery_s(hits: list[Hit], since: float, normal_p99_s: float) -> float:
    """Return when the last bad second ended: one with a refusal, or whose slowest tenth was above the normal p99."""
    end = 0.0
    for second in range(int(max(hit.at for hit in hits) - since) + 1):
        those = [hit for hit in hits if second <= hit.at - since < second + CALM_S]
        slow = quantile([hit.took_s for hit in those if hit.is_ok], 0.9)
        if any(not hit.is_ok for hit in those) or slow > normal_p99_s:
            end = second + CALM_S
    return end


async def measure(load: Load, api: int, chosen: argparse.Namespace) -> None:
    print("| load | sent/s | made/s | p50 ms | p99 ms | shed | shed p50 / p99 ms | other |")
    print("|---|---|---|---|---|---|---|---|")
    await load.closed(chosen.connections, 4)
    began = cpu_s(api)
    hits = await load.closed(chosen.connections, chosen.base)
    spent = cpu_s(api) - began
    made = sum(hit.is_ok for hit in hits)
    capacity = made / chosen.base
    print(row(f"closed loop, {chosen.connections} at once: the capacity", hits, chosen.base), flush=True)
    await asyncio.sleep(1)
    hits = await load.open(0.8 * capacity, chosen.base)
    normal = quantile([hit.took_s for hit in hits if hit.is_ok], 0.99)
    print(row("0.8 of it", hits, chosen.base), flush=True)
    began = cpu_s(api)
    over = await load.open(5 * capacity, chosen.over)
    over_spent, late = cpu_s(api) - began, load.late_s
    print(row("5 times it", over, chosen.over), flush=True)
    settled = [hit for hit in over if hit.at > over[0].at + ONSET_S]
    print(row(f"the same after its first {ONSET_S:.0f} s", settled, chosen.over - ONSET_S), flush=True)
    since = time.monotonic()
    after = await load.open(0.8 * capacity, chosen.base)
    print(row("0.8 again", after, chosen.base), flush=True)
    high = quantile([hit.took_s for hit in over if hit.is_ok], 0.99)
    over_made = sum(hit.is_ok for hit in over)
    shed = [hit.took_s for hit in over if hit.is_shed]
    print(f"\np99 of what was let in: {high / normal:.2f} times that at 0.8 (at most 2)")
    print(f"p99 of a refusal: {quantile(shed, 0.99) * 1000:.0f} ms (below 100)")
    print(f"made under overload: {over_made / chosen.over / capacity:.0%} of the capacity")
    print(f"normal again after {recovery_s(after, since, normal):.0f} s (at most 10)")
    print(f"API CPU: {spent / made * 1000:.1f} ms a request; under overload {over_spent / chosen.over:.0%} of a core")
    print(f"the generator was late by {late * 1000:.0f} ms at worst; statuses {statuses(over)}")


def statuses(hits: list[Hit]) -> dict[int, int]:
    return {status: sum(hit.status == status for hit in hits) for status in sorted({hit.status for hit in hits})}


def main(folder: Path, chosen: argparse.Namespace) -> None:
    with ExitStack() as stack:
        postgres, valkey = EmbeddedPostgres(folder / "pg"), EmbeddedValkey(folder / "vk")
        stack.enter_context(postgres.started())
        stack.enter_context(valkey.started())
        upstream = stack.enter_context(child(["-m", "bench.upstream"], dict(os.environ), stdout=subprocess.PIPE))
        assert upstream.stdout is not None
        config = write_config(folder, int(upstream.stdout.readline()))
        secret = asyncio.run(make_secret(postgres.url))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
        port = listener.getsockname()[1]
        environment = os.environ | {
            "MEDIAGATE_DATA": str(folder / "data"),
            "MEDIAGATE_CONFIG_DIR": str(config),
            "MEDIAGATE_DATABASE_URL": postgres.url,
            "MEDIAGATE_REDIS_URL": valkey.url_of(0),
            "MEDIAGATE_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "MEDIAGATE_KEY_PEPPER": PEPPER.get_secret_value(),
            "MEDIAGATE_SECRETS_KEY": SECRETS_KEY.get_secret_value(),
            "MEDIAGATE_LINK_SECRET": "a secret that only this benchmark uses, 40",
            "MEDIAGATE_LOG_LEVEL": "warning",
            "MEDIAGATE_SHUTDOWN_WAIT_S": "5",
            "BENCH_KEY": "none",
        }
        environment |= dict(setting.split("=", 1) for setting in chosen.settings)
        output = stack.enter_context((folder / "log").open("wb"))
        entry = ["-m", "app.cli"] if not chosen.profile else ["-m", "cProfile", "-o", chosen.profile, "-m", "app.cli"]
        api = stack.enter_context(
            child(
                [*entry, "api", "--fd", str(listener.fileno())],
                environment,
                stdout=output,
                stderr=output,
                pass_fds=(listener.fileno(),),
            )
        )
        stack.enter_context(child(["-m", "app.cli", "worker"], environment, stdout=output, stderr=output))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=READY_S) as ready:
                assert ready.status == 200
            uvloop.run(measure(Load(port, request_bytes(port, secret)), api.pid, chosen))
        finally:
            sys.stderr.write((folder / "log").read_text()[-chosen.log :])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--over", type=float, default=60.0, help="seconds of overload")
    parser.add_argument("--base", type=float, default=20.0, help="seconds of each other load")
    parser.add_argument("--connections", type=int, default=64, help="of the closed loop")
    parser.add_argument("--profile", help="write the API's cProfile here")
    parser.add_argument("--log", type=int, default=2000, help="characters of the processes' log to show at the end")
    parser.add_argument("settings", nargs="*", help="MEDIAGATE_...=value")
    with tempfile.TemporaryDirectory(prefix="mg-bench-") as name:
        main(Path(name), parser.parse_args())
