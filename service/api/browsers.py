"""What a server without keys asks of a browser: that the page is its own, and that it was called by a name of its own.

Such a server takes everybody for its owner, and its owner's browser runs the pages of others. A page may send an order
without being able to read the answer (hence the look at who sends it), or let its own name lead to this address and then
read everything (DNS rebinding, hence the look at `Host`). Addresses in numbers need no name, so nobody can redirect them.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ApiError, problem_response
from service.settings import Settings

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FOR_MACHINES = ("/healthz", "/readyz", "/metrics")  # probes call them by any name, and they tell nothing of a project


def comes_from_another_page(method: str, headers: Headers, settings: Settings) -> bool:
    """Whether a page of another site sent this order. Browsers say so and pages cannot change it; programs say nothing."""
    origin = headers.get("origin")
    if method in SAFE_METHODS or origin in settings.cors_origins:
        return False
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    own = {_authority(f"//{headers.get('host', '')}"), _authority(settings.public_url or "")}
    return origin is not None and _authority(origin) not in own - {""}


class HostCheck:
    """Answers 421 to a name that is none of this server's, where no key is asked for."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._names = {socket.gethostname().lower(), *settings.allowed_hosts, _name(settings.public_url or "")} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in FOR_MACHINES:
            name = _name(f"//{Headers(scope=scope).get('host', '')}")
            if not self._is_own(name):
                return await problem_response(Request(scope), wrong_host(name))(scope, receive, send)
        await self.app(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self._names or "*" in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def wrong_host(name: str) -> ApiError:
    detail = (
        f"this server asks for no key and is not known as {name[:100]!r}; its operator adds names that it has to "
        "ATTUNE_ALLOWED_HOSTS, or asks for keys with ATTUNE_API_KEYS_REQUIRED"
    )
    return ApiError(421, "host_not_allowed", detail)


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _authority(address: str) -> str:
    """Name and port, in lower case; the scheme is a proxy's business."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""
