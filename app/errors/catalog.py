"""Models and upstream accounts: what is not there, not allowed, or there already."""

from __future__ import annotations

from collections.abc import Iterable

from app.errors.base import Forbidden, InvalidRequest, NotFound


class UpstreamExists(InvalidRequest):
    reason = "upstream_exists"


class ModelVersionFixed(InvalidRequest):
    """For operators: what was sold is history."""

    reason = "model_version_fixed"


class ModelRouteExists(InvalidRequest):
    reason = "model_route_exists"

    def __init__(self, model: str, pool: str) -> None:
        super().__init__(f"There is a route from '{model}' to '{pool}' already.", param="upstream_model")


class ModelNotAllowed(Forbidden):
    reason = "model_not_allowed"


class ModelNotFound(NotFound):
    reason = "model_not_found"

    def __init__(self, model: str, known: Iterable[str] = ()) -> None:
        names = ", ".join(known)
        super().__init__(
            f"The model '{model}' does not exist." + (f" Available here: {names}." if names else ""), param="model"
        )


class UpstreamNotFound(NotFound):
    """Operators only: no client learns which upstream accounts exist."""

    reason = "upstream_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"No upstream account '{name[:100]}'.")


class ModelRouteNotFound(NotFound):
    """Operators only: a model's way to an upstream."""

    reason = "model_route_not_found"

    def __init__(self, route: str) -> None:
        super().__init__(f"No route '{route[:200]}'.")


class ModelVersionNotFound(NotFound):
    """Operators only: a model has no version of this number."""

    reason = "model_version_not_found"

    def __init__(self, model: str, number: int) -> None:
        super().__init__(f"The model '{model[:100]}' has no version {number}.")
