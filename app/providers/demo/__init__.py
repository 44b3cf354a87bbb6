"""The demo provider: draws real images and films on this machine, so that everything works without a cloud key.

docs/demo.md says what it draws, and how a prompt scripts its failures.
"""

from __future__ import annotations

from app.upstreams.protocols import Provider


def provider() -> Provider:
    """Return the provider; found by walking the package ``app.providers``."""
    from app.providers.demo.adapter import DemoProvider  # here: the rendering children must not pay for it

    return DemoProvider()
