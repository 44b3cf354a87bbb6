"""Prices a request without promising anything. A quote is judged by the code of the request: it equals the hold."""

from __future__ import annotations

import re

from app.accounts.keys import Principal
from app.catalog.pricing import Quote
from app.errors import InvalidParameter, MissingParameter
from app.generation.prepare import Preparer
from app.generation.videos import Videos
from app.intake import Intake
from app.requests import Operation

ENDPOINTS = (
    "images/generations", "images/edits", "videos/generations", "videos", "videos/remix", "videos/{id}/remix",
)  # fmt: skip
_REMIX = re.compile(r"videos/([^/]+)/remix")


class Quotes:
    def __init__(self, *, preparer: Preparer, videos: Videos) -> None:
        self._preparer = preparer
        self._videos = videos

    async def quote(self, principal: Principal, endpoint: str, intake: Intake) -> Quote:
        """Return what this body would cost at ``endpoint``. Raises: what the endpoint itself would refuse."""
        fields = intake.fields
        if remix := _REMIX.fullmatch(endpoint):
            endpoint, fields["id"] = "videos/remix", remix[1]
        match endpoint:
            case "images/generations":
                prepared = await self._preparer.prepare(principal, intake, Operation.IMAGE_GENERATE, is_quote=True)
            case "images/edits":
                prepared = await self._preparer.prepare(principal, intake, Operation.IMAGE_EDIT, is_quote=True)
            case "videos/generations" | "videos":
                prepared = await self._preparer.prepare(principal, intake, Operation.VIDEO_GENERATE, is_quote=True)
            case "videos/remix":
                if "id" not in fields:
                    raise MissingParameter("id", "A remix is priced from its source: give its task id as 'id'.")
                source = await self._videos.source_of(principal, str(fields.pop("id")), intake)
                prepared = await self._videos.prepare_remix(principal, source, intake, is_quote=True)
            case _:
                raise InvalidParameter(f"'endpoint' must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
        return prepared.quote
