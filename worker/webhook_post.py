"""One request to a webhook: where it may go, how long it may take, how much of the answer is read.

The name is resolved once, every address is looked at, and the connection goes to one that was (`alignment_core.addresses`). The time is
that of the whole, down to the last byte: whoever sends an answer a byte at a time holds nobody up. Redirects and proxies are not used.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from alignment_core.addresses import Address, Pinned, addresses_of, is_public
from service.store.deliveries import Answer

READ_BYTES = 2048
SHOWN_CHARACTERS = 500
SAYS_WHEN = (429, 503)


@dataclass(frozen=True)
class Reach:
    """Where webhooks may lead, and how long they have to answer."""

    allow_private: bool
    timeout_seconds: float


class Forbidden(Exception):  # noqa: N818 - a state of affairs, read as one
    """The address is none that webhooks may have."""


def post(url: str, headers: Mapping[str, str], body: str, reach: Reach) -> Answer:
    """Send it, and say what came of it; nothing that a receiver does is an exception."""
    began = time.monotonic()
    try:
        addresses = _allowed(url, reach.allow_private)
        left = reach.timeout_seconds - (
            time.monotonic() - began
        )  # looking a name up cannot be given up, only waited for
        return asyncio.run(_asked(url, addresses, headers, body, left, began))
    except TimeoutError:
        error = f"no whole answer in {reach.timeout_seconds:g} s"
    except Forbidden as refusal:
        error = str(refusal)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"[:SHOWN_CHARACTERS]
    return Answer(None, _milliseconds(began), error)


def _allowed(url: str, allow_private: bool) -> list[Address]:
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    addresses = addresses_of(url)
    if not allow_private and not all(map(is_public, addresses)):
        raise Forbidden(f"{host} has a private address")
    if scheme != "https" and not (allow_private and not any(map(is_public, addresses))):
        raise Forbidden(f"{host} is asked by https alone")
    return addresses


async def _asked(
    url: str, addresses: Sequence[Address], headers: Mapping[str, str], body: str, left: float, began: float
) -> Answer:
    *others, last = addresses
    async with asyncio.timeout(left):
        for address in others:
            try:
                return await _sent(Pinned.to(url, address), headers, body, began)
            except httpx.ConnectError:
                continue
        return await _sent(Pinned.to(url, last), headers, body, began)


async def _sent(pinned: Pinned, headers: Mapping[str, str], body: str, began: float) -> Answer:
    sent = {**headers, "Host": pinned.host_header, "Accept-Encoding": "identity"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=None, verify=httpx.create_ssl_context()) as client,  # noqa: S113  the whole has one
        client.stream(
            "POST", pinned.url, headers=sent, content=body.encode(), extensions={"sni_hostname": pinned.server_name}
        ) as answer,
    ):
        status, text = answer.status_code, await _beginning(answer)
        return Answer(
            status=status,
            milliseconds=_milliseconds(began),
            error="redirects are not followed" if answer.is_redirect else None,
            answer=text,
            retry_after=_retry_after(answer.headers.get("retry-after", "")) if status in SAYS_WHEN else None,
        )


async def _beginning(answer: httpx.Response) -> str:
    """What is shown of the body; the rest is not read."""
    received = bytearray()
    async for chunk in answer.aiter_raw():
        received += chunk
        if len(received) >= READ_BYTES:
            break
    return (
        bytes(received[:READ_BYTES])
        .decode(errors="replace")
        .replace("\0", "\N{REPLACEMENT CHARACTER}")[:SHOWN_CHARACTERS]
    )


def _retry_after(said: str) -> timedelta | None:
    """Seconds or a date (RFC 9110); None for what is neither."""
    if said.isascii() and said.isdigit():
        return timedelta(seconds=min(int(said[:10]), 10**9))
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(timedelta(0), until - datetime.now(UTC))


def _milliseconds(began: float) -> int:
    return round(1000 * (time.monotonic() - began))
