"""An administrator who calls the administration's API, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from httpx2 import AsyncClient

from app.accounts.users import Account
from tests.factories import make_account, make_key

if TYPE_CHECKING:
    from app.wiring import Services


@dataclass(frozen=True, slots=True)
class Administrator:
    client: AsyncClient
    services: Services
    account: Account
    headers: dict[str, str]

    @classmethod
    async def make(cls, client: AsyncClient, services: Services) -> Administrator:
        account = await make_account(services.engine, credits=0, is_admin=True)
        key = await make_key(services.engine, account, scopes=["admin:*"])
        return cls(client, services, account, {"authorization": f"Bearer {key.secret}"})

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """Return the answer's body, whose status must be this."""
        if body is not None:
            more["json"] = body
        answer = await self.client.request(method, f"/admin/v1{path}", headers=self.headers, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def error(self, method: str, path: str, body: Any = None, *, status: int = 400, **more: Any) -> Any:
        return (await self.call(method, path, body, status=status, **more))["error"]

    async def audit(self, target: str) -> Any:
        """Return what was noted of a target, newest first."""
        return (await self.call("GET", "/audit", params={"target": target}))["data"]
