"""Services over the real database and Valkey, with a fake provider at the border; steps are taken by hand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app import db
from app.accounts.principal import Principal
from app.intake import Intake
from app.requests import Operation
from app.settings import Settings
from app.tasks.queries import TaskView
from app.wiring import Services, first_look, open_services
from tests.factories import PEPPER, SECRETS_KEY, make_account, make_key
from tests.fakes import FakeProvider

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def settings(tmp_path: Path, fresh_database: Callable[..., str], redis_url: str) -> Settings:
    """Short leases and waits; the models of the real catalogue, routed to the fake upstream."""
    config = tmp_path / "config"
    config.mkdir()
    models = (CONFIG / "models.yaml").read_text()
    models = re.sub(r"^ +- \{upstream: (?!demo\b).*\n", "", models, flags=re.MULTILINE)  # of each model one route stays
    models = models.replace(", options: {stand_in: true}", "")
    pool = tmp_path.name.replace("_", "-")  # pools of their own: tests of one database do not meet
    (config / "models.yaml").write_text(re.sub(r"upstream: demo", f"upstream: {pool}", models))
    (config / "upstreams.yaml").write_text(f"upstreams:\n  {pool}:\n    provider: fake\n    concurrency: 8\n")
    return Settings(
        database_url=fresh_database(migrated=True),  # accounts and routes are rows: each test has its own
        redis_url=redis_url,
        data=tmp_path / "data",
        config_dir=config,
        key_pepper=PEPPER,
        secrets_key=SECRETS_KEY,
        link_secret="a secret that only tests use, 40 letters..",
        lease_s=30,
        sweep_s=0.1,
        poll_min_s=0.05,
        queue_wait_image_s=5,
    )


@pytest.fixture
async def services(settings: Settings, fake: FakeProvider) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, providers={"fake": fake}))
        await first_look(services)
        services.start_listening()
        yield services


@dataclass
class Caller:
    """One account with one key, and what a caller does."""

    services: Services
    principal: Principal
    spool: Path

    @property
    def account_id(self) -> int:
        return self.principal.account_id

    async def image(self, prompt: str = "a fox", **fields: Any) -> TaskView:
        intake = Intake({"prompt": prompt, **fields}, self.spool)
        return await self.services.images.run(self.principal, intake, operation=Operation.IMAGE_GENERATE)

    async def queued_image(self, **fields: Any) -> TaskView:
        intake = Intake({"prompt": "a fox", **fields}, self.spool)
        return await self.services.images.accept(self.principal, intake, operation=Operation.IMAGE_GENERATE)

    async def video(self, **fields: Any) -> TaskView:
        intake = Intake({"prompt": "a river", "resolution": "480p", **fields}, self.spool)
        return await self.services.videos.submit(self.principal, intake)

    async def task(self, task_id: UUID) -> TaskView:
        view = await self.services.queries.find(task_id)
        assert view is not None
        return view

    async def step(self, view: TaskView) -> TaskView:
        """Make the task due and take one step of it, as a worker would."""
        await make_due(self.services, view.id)
        await self.services.advancer.advance(view.id)
        return await self.task(view.id)

    async def to_the_end(self, view: TaskView, *, steps: int = 12) -> TaskView:
        for _ in range(steps):
            if view.is_final:
                return view
            view = await self.step(view)
        raise AssertionError(f"not at its end after {steps} steps: {view.status}")

    async def balance(self) -> tuple[int, int]:
        """(available, held)"""
        balance = await self.services.ledger.balance(self.account_id)
        return balance.credits, balance.held

    async def attempts(self, view: TaskView) -> list[str]:
        return [attempt["state"] for attempt in await self.services.queries.attempts(view.id)]


@pytest.fixture
async def caller(services: Services, tmp_path: Path) -> Caller:
    account = await make_account(services.engine, credits=1000)
    key = await make_key(services.engine, account)
    spool = tmp_path / "spool"
    spool.mkdir()
    return Caller(services, await services.callers.authenticate(key.secret, peer="127.0.0.1"), spool)


async def make_due(services: Services, task_id: UUID) -> None:
    """Let the task's wait, or its dead holder's lease, be over."""
    await db.once(services.engine, "UPDATE tasks SET wake_at = now() WHERE id = $1 AND settled_at IS NULL", (task_id,))


async def make_overdue(services: Services, task_id: UUID) -> None:
    """Let the task's deadline be over."""
    await db.once(
        services.engine,
        "UPDATE tasks SET deadline_at = now() - interval '1 second', wake_at = now() WHERE id = $1",
        (task_id,),
    )


async def assert_books_balance(services: Services) -> None:
    findings = await services.audit.run(services.storage.walk())
    # I10 compares one storage with one database; here every test has a folder of its own.
    assert [f for f in findings if not f.is_clean and f.invariant != "I10"] == []
