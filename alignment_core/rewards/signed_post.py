"""One signed JSON request to a server that a user named: what may be reached, how it is asked, how long it is waited for.

Names are resolved once an attempt, every address is checked, and the connection goes to the checked address
(`addresses.py`). Redirects are not followed, proxies are not used.
"""

import hmac
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from alignment_core.addresses import Address, Pinned, addresses_of, is_public
from alignment_core.errors import AlignmentError

SECRET_VARIABLE = "ATTUNE_REMOTE_REWARD_SECRET"  # noqa: S105  its name, not its value
HOSTS_VARIABLE = "ATTUNE_REMOTE_REWARD_HOSTS"
MAX_ANSWER_BYTES = 2**20
LONGEST_PAUSE_SECONDS = 30.0
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Access:
    """What the operator of this machine allows: the secret that signs requests, and the hosts they may go to.

    `hosts` None allows every host whose addresses are public; a host that is named may have private ones too.
    """

    secret: str = field(repr=False)
    hosts: frozenset[str] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Access":
        """`ATTUNE_REMOTE_REWARD_SECRET` and, separated by commas, `ATTUNE_REMOTE_REWARD_HOSTS`. Raises `AlignmentError`."""
        secret = environment.get(SECRET_VARIABLE, "")
        if not secret:
            raise AlignmentError(
                "remote_reward_secret_missing",
                f"a remote reward signs its requests, and {SECRET_VARIABLE} is not set on the machine that trains",
                category="system",
            )
        listed = environment.get(HOSTS_VARIABLE)
        return cls(secret, None if listed is None else frozenset(parse_hosts(listed)))


def parse_hosts(text: str) -> list[str]:
    """Host names of a list separated by commas, in lower case."""
    return [host.strip().lower() for host in text.split(",") if host.strip()]


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Hex HMAC-SHA256 under `secret` of the timestamp, a full stop and the body."""
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


@dataclass(frozen=True)
class SignedPost:
    """POSTs JSON to one URL and gives back the JSON of the answer; tries again after failures that may pass.

    Raises `AlignmentError`: `remote_reward_forbidden` for a host that is not allowed, `remote_reward_unavailable` when
    the last attempt failed, `remote_reward_refused` for another status than 200, `remote_reward_invalid` for an answer
    that is too large or no JSON.
    """

    url: str
    access: Access
    timeout_seconds: float
    max_attempts: int
    first_pause_seconds: float = 1.0

    def __call__(self, content: Mapping[str, Any]) -> Any:
        body = json.dumps(content).encode()
        for attempt in range(1, self.max_attempts + 1):
            try:
                return self._attempt(body)
            except (httpx.TransportError, OSError, _Passing) as error:
                if attempt == self.max_attempts:
                    raise AlignmentError(
                        "remote_reward_unavailable",
                        f"the remote reward at {self._host} failed {attempt} times, at last with {_reason(error)}",
                        category="system",
                        retryable=True,
                    ) from error
            time.sleep(min(self.first_pause_seconds * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, body: bytes) -> Any:
        deadline = time.monotonic() + self.timeout_seconds
        timestamp = str(int(time.time()))
        headers = {
            "Accept-Encoding": "identity",  # the size limit is on what is received, not on what it unpacks to
            "Content-Type": "application/json",
            "X-Attune-Timestamp": timestamp,
            "X-Attune-Signature": signature(self.access.secret, timestamp, body),
        }
        *others, last = self._addresses()
        for address in others:
            try:
                return self._send(address, headers, body, deadline)
            except httpx.ConnectError:
                continue
        return self._send(last, headers, body, deadline)

    def _send(self, address: Address, headers: dict[str, str], body: bytes, deadline: float) -> Any:
        pinned = Pinned.to(self.url, address)
        headers = {**headers, "Host": pinned.host_header}
        with (
            httpx.Client(verify=_tls(), trust_env=False, timeout=self.timeout_seconds) as client,
            client.stream(
                "POST", pinned.url, headers=headers, content=body, extensions={"sni_hostname": pinned.server_name}
            ) as answer,
        ):
            if answer.status_code in _TRY_AGAIN:
                raise _Passing(f"status {answer.status_code}")
            if answer.status_code != 200:
                raise AlignmentError(
                    "remote_reward_refused",
                    f"the remote reward at {self._host} answered {answer.status_code}, expected 200",
                    hint="Redirects are not followed. 401 or 403: do both sides have the same secret?",
                )
            return self._read(answer, deadline)

    def _read(self, answer: httpx.Response, deadline: float) -> Any:
        received = bytearray()
        for chunk in answer.iter_raw():
            received += chunk
            if len(received) > MAX_ANSWER_BYTES:
                raise self._invalid(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise _Passing(f"no whole answer in {self.timeout_seconds:g} s")
        try:
            return json.loads(received, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self._invalid("its answer is no JSON") from error

    def _addresses(self) -> list[Address]:
        """Every address of the host, all of them allowed."""
        host, hosts = self._host, self.access.hosts
        if hosts is not None and host not in hosts:
            raise _forbidden(f"{host} is not one of the hosts in {HOSTS_VARIABLE}")
        addresses = addresses_of(self.url)
        if hosts is None and not all(is_public(address) for address in addresses):
            raise _forbidden(f"{host} has a private address, and {HOSTS_VARIABLE} does not name it")
        return addresses

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def _invalid(self, what: str) -> AlignmentError:
        return AlignmentError("remote_reward_invalid", f"the remote reward at {self._host}: {what}")


class _Passing(Exception):  # noqa: N818 - a failure that may pass, answered by the next attempt
    pass


def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # certifi's authorities, or those of SSL_CERT_FILE


def _forbidden(why: str) -> AlignmentError:
    return AlignmentError("remote_reward_forbidden", f"a remote reward may not be asked: {why}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Passing) else type(error).__name__


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
