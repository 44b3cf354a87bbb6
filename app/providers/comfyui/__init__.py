"""ComfyUI on an operator's own GPU: a graph and a binding file make a model.

`app.providers.comfyui.graph` describes the two files, `app.providers.comfyui.adapter` the options that name them.
"""

from __future__ import annotations

from app.upstreams.protocols import Provider


def provider() -> Provider:
    """Return the provider; found by walking the package ``app.providers``."""
    from app.providers.comfyui.adapter import ComfyuiProvider  # here: as the other packages do

    return ComfyuiProvider()
