"""How people come in: passwords, sessions, one-time links, registration, a provider of identities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.accounts.forms import Forms
from app.accounts.invitations import Invitations
from app.accounts.logins import Logins
from app.accounts.oidc import Oidc
from app.accounts.oidc_provider import OidcProvider
from app.accounts.passwords import Passwords
from app.accounts.registration import Registration
from app.accounts.sessions import Sessions
from app.credits.lines import grant_first
from app.sealing import SecretBox
from app.settings import Settings
from app.wiring.secrets import secret_of


@dataclass(frozen=True, slots=True)
class People:
    sessions: Sessions
    forms: Forms
    logins: Logins
    invitations: Invitations
    registration: Registration
    oidc: Oidc | None
    """None: no provider is set up."""


def open_people(settings: Settings, engine: AsyncEngine) -> People:
    passwords = Passwords(memory_kib=settings.password_memory_kib, rounds=settings.password_rounds)
    registration = Registration(
        engine,
        passwords,
        is_open=settings.registration,
        credits=settings.registration_credits,
        grant=grant_first,
    )
    return People(
        sessions=Sessions(
            engine,
            secret=secret_of(settings.link_secret),
            idle=timedelta(seconds=settings.session_idle_s),
            longest=timedelta(seconds=settings.session_max_s),
        ),
        forms=Forms(engine),
        logins=Logins(engine, passwords),
        invitations=Invitations(engine, passwords, secret=secret_of(settings.link_secret)),
        registration=registration,
        oidc=_oidc(settings, engine, registration),
    )


def _oidc(settings: Settings, engine: AsyncEngine, registration: Registration) -> Oidc | None:
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    return Oidc(
        engine,
        OidcProvider(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret),
        SecretBox(secret_of(settings.secrets_key)),
        registration,
        name=settings.oidc_name,
        base_url=settings.base_url,
        creates=settings.oidc_auto_create,
    )
