"""Figures of the whole gateway, for administrators and their dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.accounts.users import account_public_id
from app.api.admin.deps import AdminActor
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import csv_answer, json_answer, wants_csv
from app.api.v1.me import CSV
from app.api.v1.wire import Wire, unix
from app.errors import DatabaseUnavailable, InvalidParameter, ScopeMissing
from app.generation.statistics import MAX_DAYS, MoneyDay, Outcomes, Period, Storage
from app.spreadsheets import csv_text

router = APIRouter(prefix="/admin/v1/statistics", tags=["Administration"])

READ = errors(InvalidParameter, ScopeMissing, DatabaseUnavailable)


class MinuteFigures(Wire):
    at: int
    succeeded: int
    failed: int
    cancelled: int


class OutcomeFigures(Wire):
    group: str = Field(description="A model, or an upstream account.")
    ended: int
    succeeded: int
    failed: int
    cancelled: int
    success_rate: float | None = Field(description="0 to 1, of those that were not cancelled; null: there were none.")
    p50_s: float | None = Field(description="From request to result, of those that succeeded.")
    p95_s: float | None

    @classmethod
    def of(cls, outcomes: Outcomes) -> OutcomeFigures:
        return cls(
            group=outcomes.group,
            ended=outcomes.ended,
            succeeded=outcomes.succeeded,
            failed=outcomes.failed,
            cancelled=outcomes.cancelled,
            success_rate=outcomes.success_rate,
            p50_s=outcomes.p50_s,
            p95_s=outcomes.p95_s,
        )


class PoolFigures(Wire):
    pool: str
    queued: int
    running: int
    oldest_queued_s: float | None
    held: int


class TopAccountFigures(Wire):
    account: str
    email: str
    tasks: int
    credits: int


class Statistics(Wire):
    object: Literal["statistics"] = "statistics"
    period: Period
    minutes: list[MinuteFigures] = Field(description="The last hour: tasks that ended in each minute.")
    models: list[OutcomeFigures]
    upstreams: list[OutcomeFigures]
    pools: list[PoolFigures] = Field(description="What is unfinished now.")
    oldest_due_s: float = Field(description="How long the most overdue step has waited for a worker.")
    webhooks_pending: int
    top_accounts: list[TopAccountFigures] = Field(description="Who spent most in the period.")


class MoneyFigures(Wire):
    day: str
    sold: int
    granted: int
    captured: int
    refunded: int
    expired: int
    adjusted: int
    costs: dict[str, int] = Field(description="What upstreams charged us, in millionths, by currency.")

    @classmethod
    def of(cls, day: MoneyDay) -> MoneyFigures:
        return cls(
            day=day.day,
            sold=day.sold,
            granted=day.granted,
            captured=day.captured,
            refunded=day.refunded,
            expired=day.expired,
            adjusted=day.adjusted,
            costs=dict(day.costs),
        )


class MoneyStatistics(Wire):
    object: Literal["statistics.money"] = "statistics.money"
    data: list[MoneyFigures]
    posted: int = Field(description="Credits of all accounts now.")
    held: int = Field(description="Of these, what running tasks have put aside.")


class StoredFigures(Wire):
    role: str
    state: str
    files: int
    bytes: int


class ExpiryFigures(Wire):
    day: str
    files: int
    bytes: int


class StorageStatistics(Wire):
    object: Literal["statistics.storage"] = "statistics.storage"
    data: list[StoredFigures]
    expiry: list[ExpiryFigures] = Field(description="What will be removed on which day (UTC).")
    disk_free_bytes: int
    disk_total_bytes: int
    keep_free_bytes: int = Field(description="With less than this free no new work is taken.")
    result_ttl_s: int
    input_ttl_s: int
    link_ttl_s: int

    @classmethod
    def of(cls, storage: Storage) -> StorageStatistics:
        return cls(
            data=[
                StoredFigures(role=kind.role, state=kind.state, files=kind.files, bytes=kind.size_bytes)
                for kind in storage.kinds
            ],
            expiry=[ExpiryFigures(day=day.day, files=day.files, bytes=day.size_bytes) for day in storage.expiry],
            disk_free_bytes=storage.disk_free_bytes,
            disk_total_bytes=storage.disk_total_bytes,
            keep_free_bytes=storage.keep_free_bytes,
            result_ttl_s=int(storage.result_ttl.total_seconds()),
            input_ttl_s=int(storage.input_ttl.total_seconds()),
            link_ttl_s=int(storage.link_ttl.total_seconds()),
        )


@router.get(
    "",
    summary="Read how the gateway does",
    description="Ends per minute, success and durations by model and upstream, queues, and who spends most.",
    response_model=Statistics,
    responses=READ,
    operation_id="get_statistics",
)
async def get_statistics(actor: AdminActor, services: ServicesDep, period: Period = "24h") -> Response:
    figures = services.statistics
    backlog = await figures.backlog()
    return json_answer(
        Statistics(
            period=period,
            minutes=[
                MinuteFigures(
                    at=unix(minute.at), succeeded=minute.succeeded, failed=minute.failed, cancelled=minute.cancelled
                )
                for minute in await figures.minutes()
            ],
            models=[OutcomeFigures.of(row) for row in await figures.outcomes(period, by="model")],
            upstreams=[OutcomeFigures.of(row) for row in await figures.outcomes(period, by="upstream")],
            pools=[
                PoolFigures(
                    pool=pool.pool,
                    queued=pool.queued,
                    running=pool.running,
                    oldest_queued_s=pool.oldest_queued_s,
                    held=pool.held,
                )
                for pool in backlog.pools
            ],
            oldest_due_s=backlog.oldest_due_s,
            webhooks_pending=backlog.webhooks_pending,
            top_accounts=[
                TopAccountFigures(
                    account=account_public_id(top.account_id), email=top.email, tasks=top.tasks, credits=top.credits
                )
                for top in await figures.top_accounts(period)
            ],
        )
    )


@router.get(
    "/money",
    summary="Read what came in and went out",
    description="By day (UTC), today with them. `Accept: text/csv` gives a spreadsheet.",
    response_model=MoneyStatistics,
    responses=CSV | READ,
    operation_id="get_money_statistics",
)
async def get_money_statistics(
    request: Request,
    actor: AdminActor,
    services: ServicesDep,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS)] = 30,
) -> Response:
    money = await services.statistics.money(days)
    if wants_csv(request):
        return csv_answer(money_csv(money.days), "money.csv")
    return json_answer(
        MoneyStatistics(data=[MoneyFigures.of(day) for day in money.days], posted=money.posted, held=money.held)
    )


@router.get(
    "/storage",
    summary="Read what is stored",
    description="Files by role and state, when they expire, and how much room is left.",
    response_model=StorageStatistics,
    responses=READ,
    operation_id="get_storage_statistics",
)
async def get_storage_statistics(actor: AdminActor, services: ServicesDep) -> Response:
    return json_answer(StorageStatistics.of(await services.statistics.storage()))


def money_csv(days: Sequence[MoneyDay]) -> str:
    """Return lines with a header, as a spreadsheet reads them."""
    names = ("day", "sold", "granted", "captured", "refunded", "expired", "adjusted")
    currencies = sorted({currency for day in days for currency in day.costs})
    header = (*names, *(f"cost_micros_{currency or 'unknown'}" for currency in currencies))
    rows = ([*(getattr(day, name) for name in names), *(day.costs.get(c, 0) for c in currencies)] for day in days)
    return csv_text(header, rows)
