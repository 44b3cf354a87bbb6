"""For operators: secrets of this process that do not fit those in the database."""

from __future__ import annotations

from app.errors.base import InvalidRequest


class WrongPepper(InvalidRequest):
    """For operators: this process has another key pepper than the one the keys in the database were made with."""

    reason = "wrong_pepper"

    def __init__(self) -> None:
        super().__init__(
            "MEDIAGATE_KEY_PEPPER is not the one the keys in this database were made with: the gateway would refuse "
            "a key minted now. Set it as for the API, or name its data folder in MEDIAGATE_DATA."
        )


class WrongSecretsKey(InvalidRequest):
    """For operators: the stored secrets were sealed with a key this process does not have."""

    reason = "wrong_secrets_key"

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"MEDIAGATE_SECRETS_KEY is not the one the secrets in this database were sealed with (key {key_id}). "
            "Set it as for the API, or name its data folder in MEDIAGATE_DATA. If the key is lost: "
            "`mediagate upstreams reencrypt --drop-unreadable`, then `rotate` each account."
        )


class SecretDamaged(InvalidRequest):
    """For operators: a sealed secret was changed, or moved from another row."""

    reason = "secret_damaged"

    def __init__(self, remedy: str) -> None:
        super().__init__(f"A stored secret does not open, as its row was changed: that of the {remedy}.")
