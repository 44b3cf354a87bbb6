"""The shape of ``config/models.yaml`` and ``config/upstreams.yaml``; ``checks.py`` judges what joins the parts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.catalog.frozen import Frozen, OperationWord
from app.catalog.inputs import Input
from app.catalog.parameters import Parameter
from app.catalog.pricing import Price
from app.catalog.rules import Rule
from app.catalog.sizes import SizeTable

Name = Annotated[str, StringConstraints(pattern=re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"))]
EnvName = Annotated[str, StringConstraints(pattern=re.compile(r"^[A-Z][A-Z0-9_]*$"))]


class Route(Frozen):
    """Public model -> the upstream's own model id, at one upstream account."""

    upstream: str
    model: str = Field(min_length=1)
    operations: tuple[OperationWord, ...] | None = None
    """None: all of the model's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """For the provider, as it documents them; ``stand_in`` is the router's."""
    priority: int | None = Field(None, ge=0)
    """Lower goes first. None: as they stand, the first one first."""
    weight: int = Field(1, ge=1)
    """Share among routes of equal priority."""
    needs_permission: bool = False
    """A costlier route: only for requests with ``official_fallback``, unless there is no other."""


class Sizes(Frozen):
    """Which size table, and which choice parameter picks its column."""

    table: str
    tier: str


class ModelSpec(Frozen):
    """One public model."""

    type: Literal["image", "video"]
    title: str
    description: str = ""
    created: int = Field(0, ge=0)
    """Unix seconds, for GET /v1/models."""
    owned_by: str = "mediagate"
    operations: tuple[OperationWord, ...] = Field(min_length=1)
    prompt_optional_with: tuple[str, ...] = ()
    """Inputs that can stand without a prompt."""
    parameters: dict[Name, Parameter]
    inputs: dict[Name, Input] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    sizes: Sizes
    price: Price
    routes: tuple[Route, ...] = ()
    """Of a file's entry: its first routes. A version has none, as routes are rows that live on their own."""


class ModelsFile(Frozen):
    version: str = Field(min_length=1)
    """The price list's version: kept with every quote. Raise it with each change of a price."""
    default_image_model: str
    default_video_model: str
    refused_fields: tuple[str, ...] = ()
    """Fields that are known and that no model has: an error rather than a warning."""
    size_tables: dict[str, SizeTable]
    models: dict[Name, ModelSpec] = Field(min_length=1)


class UpstreamSpec(Frozen):
    """One account at a vendor. The secret is the content of an environment variable, never in the file."""

    name: str = ""
    provider: str
    base_url: str | None = Field(None, pattern=r"^https?://")
    secret_env: EnvName | None = None
    concurrency: int = Field(4, ge=1)
    """Tasks of one model that may be with this account at the same time."""
    options: dict[str, Any] = Field(default_factory=dict)


class UpstreamsFile(Frozen):
    upstreams: dict[Name, UpstreamSpec] = Field(min_length=1)
