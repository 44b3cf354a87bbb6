"""Google: Gemini images (``generateContent``), and Veo videos on the Agent Platform or in the older Gemini shape.

The account's options are described in `app.providers.google.api`, prices in `app.providers.google.images`.
"""

from __future__ import annotations

from app.upstreams.protocols import Provider


def provider() -> Provider:
    """Return the provider; found by walking the package ``app.providers``."""
    from app.providers.google.adapter import GoogleProvider  # here: as the other packages do

    return GoogleProvider()
