"""APIMart and servers of its kind: every image and video is a task that is submitted once and polled.

The account's and the route's options are described in `app.providers.apimart.adapter`.
"""

from __future__ import annotations

from app.upstreams.protocols import Provider


def provider() -> Provider:
    """Return the provider; found by walking the package ``app.providers``."""
    from app.providers.apimart.adapter import ApimartProvider  # here: as the other packages do

    return ApimartProvider()
