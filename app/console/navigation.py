"""The console's pages as its menu shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.accounts.sessions import Session
from app.console.wording import _


@dataclass(frozen=True, slots=True)
class Item:
    path: str
    title: str
    icon: str


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    items: tuple[Item, ...]


USER = (
    Group(
        "",
        (
            Item("/console", _("Home"), "house"),
            Item("/console/playground", _("Playground"), "wand-sparkles"),
            Item("/console/models", _("Models"), "boxes"),
            Item("/console/gallery", _("Gallery"), "images"),
            Item("/console/tasks", _("Tasks"), "list-checks"),
        ),
    ),
    Group(
        _("Build"),
        (
            Item("/console/keys", _("API keys"), "key-round"),
            Item("/console/webhooks", _("Webhooks"), "webhook"),
            Item("/console/docs", _("Docs"), "book-open"),
        ),
    ),
    Group(
        _("Credits"),
        (
            Item("/console/usage", _("Usage"), "chart-column"),
            Item("/console/ledger", _("Ledger"), "receipt-text"),
            Item("/console/prices", _("Prices"), "tags"),
        ),
    ),
)
ADMIN = (
    Group(
        _("Administration"),
        (
            Item("/console/admin", _("Dashboard"), "layout-dashboard"),
            Item("/console/admin/users", _("Users and credits"), "users"),
            Item("/console/admin/keys", _("All API keys"), "shield"),
            Item("/console/admin/codes", _("Redeem codes"), "ticket"),
            Item("/console/admin/models", _("Models and prices"), "boxes"),
            Item("/console/admin/upstreams", _("Upstreams"), "server"),
            Item("/console/admin/tasks", _("All tasks"), "activity"),
            Item("/console/admin/audit", _("Audit log"), "scroll-text"),
            Item("/console/admin/storage", _("Storage"), "hard-drive"),
            Item("/console/admin/settings", _("Settings"), "settings"),
        ),
    ),
)


def place_of(path: str) -> str | None:
    """Return what the menu calls the page that a path is, or lies below."""
    items = [item for group in USER + ADMIN for item in group.items if f"{path}/".startswith(f"{item.path}/")]
    return max(items, key=lambda item: len(item.path)).title if items else None


def navigation(session: Session) -> Sequence[Group]:
    return USER + ADMIN if session.is_admin else USER
