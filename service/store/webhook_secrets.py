"""Secrets of webhooks: made here, and sealed before they reach the database, since signing needs them whole.

The key is the operator's and never in the database, so a copy of the database signs nothing. Several keys may be given: the first
seals, all open, so that a key is changed without a pause. Fernet (AES-128-CBC with HMAC-SHA256) is `cryptography`'s recipe.
"""

import base64
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PREFIX = "whsec_"
_SECRET_BYTES = 32  # the specification asks for 24 to 64


class SecretLost(Exception):  # noqa: N818 - a state of affairs, read as one
    """No key that is given opens the secret: it was sealed with another."""


def new_secret() -> str:
    """As the specification has it: `whsec_` and the base64 of random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


class Sealer:
    """Seals and opens with keys that may be any text of 32 characters or more."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        assert keys, "without a key nothing can be sealed"
        derived = [base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()) for key in keys]
        self._fernet = MultiFernet([Fernet(key) for key in derived])

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SecretLost("no key in ATTUNE_WEBHOOKS_KEY opens this webhook's secret") from error


def key_in(path: Path) -> str:
    """The key of an embedded server, made at the first use; of several processes that make one, all get the same."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(mine, path)  # whole, or not at all
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return path.read_text()
