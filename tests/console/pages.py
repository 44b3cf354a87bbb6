"""Pages without a browser: signs somebody in, gets and posts as a browser would, and reads what the page says.

    tab = await sign_in(client, services, account)            # or make_user(services, is_admin=True)
    page = await tab.get("/console/keys")
    page = await tab.post("/console/keys", {"name": "Mine"})   # the form of the last page, with what it held before
    assert page.status == 200 and "Mine" in page.text

`post` looks for the form with that action on the last page, takes every field's value from it (the token and the
form's id too) and lays ``fields`` over them, as somebody does who fills it in. It follows a redirect, and ``page.url``
says where to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from httpx2 import AsyncClient, Response

from app.accounts.users import Account
from app.wiring import Services
from tests.factories import make_account

PASSWORD = "correct horse battery staple"
OURS = {"sec-fetch-site": "same-origin"}
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
HIDDEN = ("script", "style", "template")

Fields = Mapping[str, str | Sequence[str]]


@dataclass(slots=True)
class Element:
    """A part of a page. ``element["href"]`` is an attribute, "" where there is none."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, attribute: str) -> str:
        return self.attributes.get(attribute, "")

    def __contains__(self, attribute: str) -> bool:
        return attribute in self.attributes

    def __iter__(self) -> Iterator[Element]:
        """All elements inside, in the order of the page."""
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    def all(self, name: str | None = None, **attributes: str) -> list[Element]:
        """Return elements inside by name, attributes (``data_x`` is ``data-x``, ``name_`` is ``name``) and class."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            found
            for found in self
            if (name is None or found.name == name)
            and all(
                value in found[key].split() if key == "class" else found[key] == value for key, value in wanted.items()
            )
        ]

    def one(self, name: str | None = None, **attributes: str) -> Element:
        found = self.all(name, **attributes)
        assert len(found) == 1, f"{len(found)} of {name} {attributes}"
        return found[0]

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return " ".join(self._words())

    @property
    def raw(self) -> str:
        """Its text as it stands: of code, a text area, or a data block."""
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)

    def _words(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield from child.split()
            elif child.name not in HIDDEN:
                yield from child._words()


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(made)
        if tag not in VOID:
            self._open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open[-1].name == tag, f"</{tag}> closes <{self._open[-1].name}>, line {self.getpos()[0]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parse(html: str) -> Element:
    """Read a page. One that closes its elements in the wrong order fails the test."""
    tree = _Tree()
    tree.feed(html)
    tree.close()
    return tree.root


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: ``url`` is the path and query it came from."""

    response: Response
    url: str
    root: Element

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def html(self) -> str:
        return self.response.text

    @property
    def text(self) -> str:
        """What a reader sees of the page's own part, without menus."""
        found = self.root.all("main") or [self.root]
        return found[0].text

    @property
    def title(self) -> str:
        return self.root.one("h1").text

    @property
    def alert(self) -> str:
        """What is wrong with a form: as a whole, and by its fields."""
        return " ".join(found.text for found in (*self.root.all(role="alert"), *self.root.all("span", class_="error")))

    @property
    def rows(self) -> list[str]:
        """The rows of the page's tables."""
        return [row.text for body in self.root.all("tbody") for row in body.all("tr")]

    @property
    def links(self) -> list[str]:
        return [found["href"] for found in self.root.all("a")]

    def forms(self, action: str) -> list[Element]:
        """Return the forms that are posted to this address: filters are none of them."""
        posted = self.root.all("form", method="post")
        return [form for form in posted if (form["action"] or urlsplit(self.url).path) == action]

    def form(self, action: str, having: Mapping[str, str] | None = None) -> Element:
        """Return the form with this action, the first of those that hold these values."""
        for form in self.forms(action):
            held = filled(form)
            if all(held.get(name) == [value] for name, value in (having or {}).items()):
                return form
        raise AssertionError(f"{self.url} has no form {action} with {having}; it has {self._actions()}\n{self.text}")

    def _actions(self) -> list[str]:
        return [form["action"] for form in self.root.all("form")]


def filled(form: Element) -> dict[str, list[str]]:
    """Return what a browser would send of a form that nobody has changed, without its buttons."""
    found: dict[str, list[str]] = {}
    for part in form:
        if not part["name"] or "disabled" in part:
            continue
        if part.name == "input" and (part["type"] not in ("checkbox", "radio") or "checked" in part):
            if part["type"] not in ("submit", "button", "file"):
                found.setdefault(part["name"], []).append(part.attributes.get("value", ""))
        elif part.name == "textarea":
            found.setdefault(part["name"], []).append(part.raw.removeprefix("\n"))
        elif part.name == "select":
            options = part.all("option")
            chosen = [one for one in options if "selected" in one] or ([] if "multiple" in part else options[:1])
            found.setdefault(part["name"], []).extend(one.attributes.get("value", one.text) for one in chosen)
    return found


@dataclass(slots=True)
class Tab:
    """A browser's tab: its cookies, and the page it shows. Nobody is signed in until `sign_in` has done it."""

    client: AsyncClient
    cookies: dict[str, str] = field(default_factory=dict)
    page: Page | None = None
    account: Account | None = None

    async def get(self, path: str, *, follow: bool = False, headers: Mapping[str, str] | None = None) -> Page:
        return await self._ask("GET", path, follow=follow, headers=headers)

    async def post(
        self,
        path: str,
        fields: Fields | None = None,
        *,
        on: str | None = None,
        having: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        files: Mapping[str, tuple[str, bytes]] | None = None,
        follow: bool = True,
    ) -> Page:
        """Send the form of the last page (or of the page ``on``) whose action is ``path``.

        ``having`` picks one of many such forms, ``without`` leaves fields out: unticked boxes, a token.
        """
        if on is not None:
            await self.get(on)
        assert self.page is not None, "get a page first, or name one with on="
        sent = filled(self.page.form(path, having))
        for name, value in (fields or {}).items():
            sent[name] = [value] if isinstance(value, str) else list(value)
        return await self.send(path, {name: sent[name] for name in sent if name not in without}, files, follow=follow)

    async def send(
        self,
        path: str,
        fields: Fields,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        *,
        follow: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """Send exactly these fields: what no page of ours would."""
        how: dict[str, Any] = {"content": urlencode(fields, doseq=True)}
        headers = {"content-type": "application/x-www-form-urlencoded", **OURS, **(headers or {})}
        if files is not None:
            how = {"data": dict(fields), "files": dict(files)}
            headers.pop("content-type")
        return await self._ask("POST", path, follow=follow, headers=headers, **how)

    async def _ask(
        self, method: str, path: str, *, follow: bool, headers: Mapping[str, str] | None, **how: Any
    ) -> Page:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {**({"cookie": cookies} if cookies else {}), **(headers or {})}
        response = await self.client.request(method, path, headers=headers, **how)
        self.client.cookies.clear()  # they are this tab's, and the client is the whole test's
        for line in response.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        if follow and response.status_code == 303:
            return await self._ask("GET", response.headers["location"], follow=True, headers=None)
        is_page = response.headers.get("content-type", "").startswith("text/html")
        self.page = Page(response, path, parse(response.text) if is_page else Element(""))
        return self.page


async def make_user(services: Services, *, password: str | None = None, **how: Any) -> Account:
    """Make an account (``how`` is `make_account`'s), with a password where one is given."""
    account = await make_account(services.engine, **how)
    if password is not None:
        await services.logins.set_password(account.id, password)
    return account


async def sign_in(
    client: AsyncClient, services: Services, account: Account | None = None, *, language: str = "en", **how: Any
) -> Tab:
    """Open a session, without a password's hash, and return the tab that holds it; ``how`` makes an account."""
    account = account or await make_user(services, **how)
    await services.logins.set_preferences(account.id, language, "system")  # type: ignore[arg-type]
    opened = await services.sessions.open(account.id, user_agent="Firefox", peer="192.0.2.7")
    return Tab(client, {"mg": opened.token}, account=account)
