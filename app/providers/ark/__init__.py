"""Seedance on Volcengine Ark and BytePlus ModelArk."""

from __future__ import annotations

from app.providers.ark.adapter import ArkProvider


def provider() -> ArkProvider:
    """Called once by the registry."""
    return ArkProvider()
