"""Signed links: an address that opens one file or one stream for some minutes, for whom no header can be set.

A link names the key or the session that it was made with, when it ends, and the secret that signed it. The signature covers
these, the path and every other parameter: another file, a longer time or another key is another signature.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

PARAMETER = "link"


@dataclass(frozen=True)
class Link:
    """What a link says of itself."""

    secret_id: str
    maker_id: str  # a key's or a session's
    ends_at: int  # seconds since 1970
    signature: str

    def __str__(self) -> str:
        return f"{self.secret_id}.{self.maker_id}.{self.ends_at}.{self.signature}"

    @staticmethod
    def parsed(text: str) -> "Link | None":
        parts = text.split(".")
        if len(parts) != 4 or not (parts[2].isascii() and parts[2].isdecimal() and len(parts[2]) <= 12):
            return None
        return Link(parts[0], parts[1], int(parts[2]), parts[3])


def signed(secret_id: str, secret: bytes, maker_id: str, ends_at: int, address: str) -> Link:
    """The link for `address`, a path with its parameters."""
    return Link(secret_id, maker_id, ends_at, _signature(secret, secret_id, maker_id, ends_at, address))


def is_genuine(link: Link, secret: bytes, address: str) -> bool:
    """Whether the link was made here, and for this address."""
    expected = _signature(secret, link.secret_id, link.maker_id, link.ends_at, address)
    return hmac.compare_digest(expected.encode(), link.signature.encode("utf-8", "replace"))


def _signature(secret: bytes, secret_id: str, maker_id: str, ends_at: int, address: str) -> str:
    split = urlsplit(address)
    others = [pair for pair in parse_qsl(split.query, keep_blank_values=True) if pair[0] != PARAMETER]
    told = "\n".join(("attune link 1", secret_id, maker_id, str(ends_at), unquote(split.path), urlencode(others)))
    digest = hmac.new(secret, told.encode("utf-8", "replace"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
