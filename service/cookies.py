"""The cookie of a browser's session, and the CSRF token that goes with it.

The cookie is out of reach for scripts, is sent to this origin alone and never with a request that another site caused. Over
HTTPS its name begins with `__Host-`, which browsers take from this very host alone (RFC 6265bis, section 4.1.3.2), so that no
neighbour under the same domain can put one of its own in its place. The CSRF token is an HMAC of the cookie's token, so
nothing has to be stored for it, and whoever knows it knows nothing of the cookie.
"""

import hashlib
import hmac

from fastapi import Request, Response

from service.settings import Settings

NAME = "attune_session"
CSRF_HEADER = "X-CSRF-Token"


def session_token(request: Request, settings: Settings) -> str | None:
    """The token that the browser sent."""
    return request.cookies.get(_name(request, settings))


def set_session(request: Request, response: Response, settings: Settings, token: str, max_age_seconds: int) -> None:
    response.set_cookie(
        _name(request, settings),
        token,
        max_age=max_age_seconds,
        secure=_is_https(request, settings),
        httponly=True,
        samesite="strict",
    )


def forget_session(request: Request, response: Response, settings: Settings) -> None:
    """Have the browser throw its cookie away."""
    set_session(request, response, settings, "", 0)


def csrf_token(token: str) -> str:
    return hmac.new(token.encode("utf-8", "replace"), b"attune csrf 1", hashlib.sha256).hexdigest()


def has_csrf_token(request: Request, token: str) -> bool:
    """Whether the request comes from a page that could read what this server told it."""
    sent = request.headers.get(CSRF_HEADER, "")
    return hmac.compare_digest(sent.encode("utf-8", "replace"), csrf_token(token).encode())


def _name(request: Request, settings: Settings) -> str:
    return f"__Host-{NAME}" if _is_https(request, settings) else NAME


def _is_https(request: Request, settings: Settings) -> bool:
    """As clients see it: by the public address where there is one, else as the proxy or the connection says."""
    return (settings.public_url or str(request.base_url)).lower().startswith("https://")
