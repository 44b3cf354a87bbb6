"""A thousand videos in flight, half of them at an account that hangs: how late does the gateway see the others' ends?

Prints the lag from "the upstream is done" to "the task is completed" for the healthy account. One worker, a one-second
poll, the embedded servers, a fake provider at the border; results are copies of one small film. Bounded: about 90 s.

    python -m bench.hanging_account [--videos 1000] [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from app import db
from app.accounts.principal import Principal
from app.credits.ledger import Ledger
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.intake import Intake
from app.journal import Actor
from app.migrate import migrate
from app.requests import VideoRequest
from app.settings import Settings
from app.upstreams.protocols import Call, Capabilities, Finished, Progress, SubmitSafety, UpstreamJob, VideoResult
from app.values import Credits
from app.wiring import Services, first_look, open_services
from tests.factories import PEPPER, SECRETS_KEY, make_account, make_key
from tests.fakes import FakeProvider, write_mp4
from workers.jobs import Sweep

CONFIG = Path(__file__).parents[1] / "config"
MODEL = "doubao-seedance-2.0-fast"
WHO = Actor("bench")


class Vendor(FakeProvider):
    """Jobs of the account ``hanging`` are never answered; the others end at a time of their own."""

    def __init__(self, film: Path) -> None:
        super().__init__()
        self.film = film
        self.done_at: dict[str, float] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(super().capabilities.operations, SubmitSafety.IDEMPOTENT, poll_s=1.0)

    async def submit_video(self, request: VideoRequest, call: Call) -> UpstreamJob:
        return UpstreamJob(f"{call.upstream.name}-{call.client_token}")

    async def poll_video(self, job: UpstreamJob, call: Call) -> Progress | Finished:
        if call.upstream.name == "hanging":
            await asyncio.sleep(15)  # a read timeout
            return Progress()
        return Finished() if time.monotonic() >= self.done_at.get(job.id, float("inf")) else Progress(5)

    async def fetch_video(self, job: UpstreamJob, call: Call) -> VideoResult:
        return VideoResult(Path(shutil.copy(self.film, call.out_dir / "video")))


async def submit_all(services: Services, principal: Principal, spool: Path, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        intake = Intake({"prompt": "a river", "resolution": "480p", "duration": 4, "model": MODEL}, spool)
        view = await services.videos.submit(principal, intake)
        await services.advancer.advance(view.id)
        ids.append(str(view.id))
    return ids


async def measure(services: Services, vendor: Vendor, spool: Path, *, videos: int, seconds: float) -> None:
    account = await make_account(services.engine, credits=0, max_in_flight=videos + 10)
    await Ledger(services.engine).top_up(account.id, Credits(100 * videos), ref="bench", actor="bench")
    key = await make_key(services.engine, account)
    principal = await services.callers.authenticate(key.secret, peer=None)
    for name, priority in (("hanging", 0), ("healthy", 1)):
        await services.book.upstreams.add(name, provider="fake", actor=WHO, concurrency=videos)
        await services.book.routes.add(MODEL, name, "theirs", actor=WHO, priority=priority)
    await services.book.refresh(services.registry)
    await submit_all(services, principal, spool, videos // 2)
    await services.health.pause("hanging/theirs", 3600)
    healthy = await submit_all(services, principal, spool, videos // 2)
    rows = await db.once(services.engine, "SELECT id, upstream_id FROM tasks WHERE id = ANY($1::uuid[])", (healthy,))
    start, began = time.monotonic(), time.time()
    vendor.done_at = {row["upstream_id"]: start + 2 + random.random() * seconds for row in rows}
    services.start(services.poller.run, Sweep(services).run)
    while len(await services.queries.settled_among([row["id"] for row in rows])) < len(rows):  # noqa: ASYNC110 - asks the database
        await asyncio.sleep(0.5)
    ends = await db.once(
        services.engine,
        "SELECT upstream_id, extract(epoch FROM settled_at)::float8 AS at FROM tasks WHERE id = ANY($1::uuid[])",
        (healthy,),
    )
    lags = sorted(row["at"] - began - (vendor.done_at[row["upstream_id"]] - start) for row in ends)
    print(f"{len(lags)} videos of the healthy account beside {videos // 2} that hang, done over {seconds:.0f} s:")
    print(f"lag p50 {statistics.median(lags):.2f} s, p95 {lags[int(len(lags) * 0.95)]:.2f} s, max {lags[-1]:.2f} s")


async def main(folder: Path, database_url: str, redis_url: str, *, videos: int, seconds: float) -> None:
    await migrate(database_url)
    config = folder / "config"
    config.mkdir()
    models = re.sub(r"^ +- \{upstream: (?!demo\b).*\n", "", (CONFIG / "models.yaml").read_text(), flags=re.MULTILINE)
    (config / "models.yaml").write_text(models)
    (config / "upstreams.yaml").write_text("upstreams:\n  demo: {provider: fake}\n")
    settings = Settings(
        database_url=database_url,  # type: ignore[arg-type]
        redis_url=redis_url,  # type: ignore[arg-type]
        data=folder / "data",
        config_dir=config,
        key_pepper=PEPPER,
        secrets_key=SECRETS_KEY,
        link_secret="a secret that only this benchmark uses, 40",  # type: ignore[arg-type]  # noqa: S106
    )
    vendor = Vendor(write_mp4(folder / "film.mp4", seconds=4))
    spool = folder / "spool"
    spool.mkdir()
    async with open_services(settings, providers={"fake": vendor}) as services:
        await first_look(services)
        services.start_listening()
        await measure(services, vendor, spool, videos=videos, seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mg-bench-") as name:
        folder = Path(name)
        postgres, valkey = EmbeddedPostgres(folder / "pg"), EmbeddedValkey(folder / "vk")
        with postgres.started(), valkey.started():
            asyncio.run(main(folder, postgres.url, valkey.url_of(0), videos=chosen.videos, seconds=chosen.seconds))
