"""Which route a request takes: capability first, then health, then priority and weight."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from app.requests import ImageRequest, MediaFile, Operation, VideoRequest
from app.upstreams.health import Blocked
from app.upstreams.protocols import Capabilities, Upstream
from app.upstreams.registry import Account, Registry, RouteEntry, Snapshot
from app.upstreams.routing import capable, ordered
from tests.fakes import FakeProvider

IMAGE = ImageRequest(Operation.IMAGE_GENERATE, "a fox", 64, 64, "1:1", "standard")


class Squeamish(FakeProvider):
    def why_not(self, request: ImageRequest | VideoRequest, model: str, upstream: Upstream) -> str | None:
        return "it makes no foxes" if "fox" in request.prompt else None


def registry(*routes: RouteEntry, states: dict[str, str] | None = None) -> Registry:
    providers = {"fake": FakeProvider(), "squeamish": Squeamish(name="squeamish")}
    accounts = {
        route.upstream: Account(
            (states or {}).get(route.upstream, "active"),  # type: ignore[arg-type]
            8,
            1,
            {1: Upstream(route.upstream, "squeamish" if route.upstream == "shy" else "fake", work_dir=Path())},
        )
        for route in routes
    }
    return Registry(providers, Snapshot(accounts, {"m": routes}))


def route(upstream: str, **more: object) -> RouteEntry:
    return RouteEntry("m", upstream, "theirs", **more)  # type: ignore[arg-type]


def stand_in(upstream: str) -> RouteEntry:
    return route(upstream, options={"stand_in": True})


def names(routes: tuple[RouteEntry, ...]) -> list[str]:
    return [found.upstream for found in routes]


def test_who_cannot_serve_it_is_left_out_and_says_why() -> None:
    found = capable(registry(route("shy"), route("a")), "m", IMAGE, may_cost_more=False)

    assert names(found.routes) == ["a"]
    assert found.reasons == ("it makes no foxes",)


def test_disabled_routes_drained_accounts_and_other_operations_are_left_out() -> None:
    book = registry(
        route("off", is_enabled=False),
        route("draining"),
        route("videos", operations=frozenset({Operation.VIDEO_GENERATE})),
        route("a"),
        states={"draining": "draining"},
    )

    assert names(capable(book, "m", IMAGE, may_cost_more=False).routes) == ["a"]


def test_a_costlier_route_needs_the_callers_permission() -> None:
    book = registry(route("cheap"), route("official", needs_permission=True))

    assert names(capable(book, "m", IMAGE, may_cost_more=False).routes) == ["cheap"]
    assert names(capable(book, "m", IMAGE, may_cost_more=True).routes) == ["cheap", "official"]


def test_a_costlier_route_needs_no_permission_where_there_is_no_other() -> None:
    official = route("official", needs_permission=True)
    films = route("films", operations=frozenset({Operation.VIDEO_GENERATE}))

    for others in ([], [route("off", is_enabled=False)], [route("draining")], [films], [stand_in("demo")]):
        book = registry(*others, official, states={"draining": "draining"})
        assert names(capable(book, "m", IMAGE, may_cost_more=False).routes) == ["official"]


def test_a_cheap_route_that_cannot_do_it_leaves_the_costlier_one_to_those_who_permit_it() -> None:
    book = registry(route("shy"), route("official", needs_permission=True))

    found = capable(book, "m", IMAGE, may_cost_more=False)

    assert found.routes == ()
    assert found.reasons == ("it makes no foxes", "a costlier route needs 'official_fallback': true")
    assert names(capable(book, "m", IMAGE, may_cost_more=True).routes) == ["official"]


def test_a_remix_at_the_costlier_account_that_made_the_source_needs_no_permission() -> None:
    book = registry(route("cheap"), route("official", needs_permission=True))

    assert names(capable(book, "m", IMAGE, may_cost_more=False, upstream="official").routes) == ["official"]


def test_a_stand_in_serves_while_nothing_else_is_set_up() -> None:
    for others in ([], [route("off", is_enabled=False)], [route("gone")]):
        book = registry(*others, stand_in("demo"), states={"gone": "deleted"})
        assert names(capable(book, "m", IMAGE, may_cost_more=False).routes) == ["demo"]


def test_a_stand_in_does_not_come_back_while_a_vendor_is_drained_or_disabled() -> None:
    for state in ("draining", "disabled"):
        book = registry(route("vendor"), stand_in("demo"), states={"vendor": state})
        assert capable(book, "m", IMAGE, may_cost_more=False).routes == ()


def test_a_stand_in_never_fills_in_for_what_a_real_upstream_cannot_do() -> None:
    films = route("films", operations=frozenset({Operation.VIDEO_GENERATE}))

    assert capable(registry(films, stand_in("demo")), "m", IMAGE, may_cost_more=False).routes == ()
    found = capable(registry(route("shy"), stand_in("demo")), "m", IMAGE, may_cost_more=False)
    assert (found.routes, found.reasons) == ((), ("it makes no foxes",))


def test_what_a_stand_in_made_is_not_continued_once_there_is_a_real_upstream() -> None:
    found = capable(registry(route("a"), stand_in("demo")), "m", IMAGE, may_cost_more=False, upstream="demo")

    assert found.routes == ()
    assert found.reasons == ("the upstream that made the source is not used any more",)


def test_a_pinned_account_is_the_only_choice() -> None:
    assert names(capable(registry(route("a"), route("b")), "m", IMAGE, may_cost_more=False, upstream="b").routes) == [
        "b"
    ]


def test_priority_goes_before_weight_and_health_before_both() -> None:
    first, second, last = route("first", priority=0), route("second", priority=1), route("last", priority=2)

    assert names(ordered([last, second, first], {}, Random(1))) == ["first", "second", "last"]
    blocked = {first.pool: Blocked("paused", 9.0), second.pool: Blocked("broken", 3.0)}
    assert names(ordered([first, second, last], blocked, Random(1))) == ["last", "second", "first"]


def test_routes_of_equal_priority_share_by_weight() -> None:
    heavy, light, random = route("heavy", weight=3), route("light", weight=1), Random(7)

    count = Counter(ordered([heavy, light], {}, random)[0].upstream for _ in range(4000))

    assert 0.70 < count["heavy"] / 4000 < 0.80


def test_an_upstream_that_reads_videos_by_url_needs_our_public_address() -> None:
    class Fetching(FakeProvider):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, fetches=frozenset({"videos"}))

    film = MediaFile(Path("film"), "video/mp4", 1, b"", "video_urls")
    asked = VideoRequest(Operation.VIDEO_GENERATE, "on", "720p", 1280, 720, "16:9", 5, videos=(film,))
    book = registry(route("a"))
    book._providers["fake"] = Fetching()

    hidden = capable(book, "m", asked, may_cost_more=False, is_public=False)
    assert hidden.routes == ()
    assert "MEDIAGATE_PUBLIC_URL" in hidden.reasons[0]
    assert names(capable(book, "m", asked, may_cost_more=False, is_public=True).routes) == ["a"]
    alone = replace(asked, videos=())
    assert names(capable(book, "m", alone, may_cost_more=False, is_public=False).routes) == ["a"]
