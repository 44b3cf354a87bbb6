"""What this process is set to, and from where; no secret is ever shown."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from app.api.admin.deps import AdminActor
from app.api.deps import ServicesDep
from app.api.openapi import errors
from app.api.v1.answers import json_answer
from app.api.v1.wire import Wire
from app.errors import DatabaseUnavailable, ScopeMissing
from app.settings import ExplainedSetting, SettingSource, explain_settings

router = APIRouter(prefix="/admin/v1/settings", tags=["Administration"])


class Setting(Wire):
    name: str
    value: str = Field(description="As text. Of a secret only `set` or `not set`.")
    source: SettingSource = Field(description="`given`: by whatever started this process.")
    is_secret: bool

    @classmethod
    def of(cls, setting: ExplainedSetting) -> Setting:
        return cls(name=setting.name, value=setting.value, source=setting.source, is_secret=setting.is_secret)


class SettingList(Wire):
    object: Literal["list"] = "list"
    data: list[Setting]


@router.get(
    "",
    summary="Read the settings",
    description="Of the process that answers. They are changed in the environment, with a restart.",
    response_model=SettingList,
    responses=errors(ScopeMissing, DatabaseUnavailable),
    operation_id="list_settings",
)
async def list_settings(actor: AdminActor, services: ServicesDep) -> Response:
    return json_answer(SettingList(data=[Setting.of(setting) for setting in explain_settings(services.settings)]))
