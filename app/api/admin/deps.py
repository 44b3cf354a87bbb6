"""What administrators' routes ask for: a key with the scope admin:*, the book, and who is to be noted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from app.accounts.key_info import key_public_id
from app.accounts.principal import ADMIN_SCOPE, Principal
from app.api.deps import requires
from app.api.errors import request_id_of
from app.catalog.book import Book
from app.catalog.inspection import Inspector
from app.journal import Actor

AdminPrincipal = Annotated[Principal, Depends(requires(ADMIN_SCOPE))]


async def get_actor(request: Request, principal: AdminPrincipal) -> Actor:
    """Return who acts, for the audit."""
    return Actor(f"{principal.email} ({key_public_id(principal.key_id)})", request_id_of(request))


AdminActor = Annotated[Actor, Depends(get_actor)]
"""Stands first in every signature: whoever has no such key learns nothing, and no body is read."""


async def get_book(request: Request) -> Book:
    services: Any = request.app.state.services
    book: Book = services.book
    return book


BookDep = Annotated[Book, Depends(get_book)]


async def get_inspector(request: Request) -> Inspector:
    services: Any = request.app.state.services
    inspector: Inspector = services.inspector
    return inspector


InspectorDep = Annotated[Inspector, Depends(get_inspector)]
