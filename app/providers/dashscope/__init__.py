"""HappyHorse on Alibaba DashScope (Model Studio)."""

from __future__ import annotations

from app.providers.dashscope.adapter import DashScopeProvider


def provider() -> DashScopeProvider:
    """Called once by the registry."""
    return DashScopeProvider()
