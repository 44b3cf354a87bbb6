"""Where the sealed secrets of upstream accounts belong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One field of one version of an account."""

    provider: str
    upstream: str
    field: str
    version: int = 0

    @property
    def aad(self) -> bytes:
        return "\n".join(("mediagate", self.provider, self.upstream, self.field, str(self.version))).encode()

    @property
    def remedy(self) -> str:
        version = f" (version {self.version})" if self.version else ""
        return f"upstream account '{self.upstream}'{version}: store it again with `mediagate upstreams rotate`"
