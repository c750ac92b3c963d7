"""The cookies of a browser, and the CSRF tokens that go with them: of its session, and before one of the form that opens it.

The cookie is out of reach for scripts, is sent to this origin alone and never with a request that another site caused. Over
HTTPS its name begins with `__Host-`, which browsers take from this very host alone (RFC 6265bis, section 4.1.3.2), so that no
neighbour under the same domain can put one of its own in its place. The CSRF token is an HMAC of the cookie's token, so
nothing has to be stored for it, and whoever knows it knows nothing of the cookie.
"""

import hashlib
import hmac
import secrets

from fastapi import Request, Response

from service.settings import Settings

NAME = "attune_session"
SIGN_IN = "attune_sign_in"
CSRF_HEADER = "X-CSRF-Token"


def session_token(request: Request, settings: Settings) -> str | None:
    """The token that the browser sent."""
    return request.cookies.get(_name(NAME, request, settings))


def set_session(request: Request, response: Response, settings: Settings, token: str, max_age_seconds: int) -> None:
    _set(NAME, request, response, settings, token, max_age_seconds)


def forget_session(request: Request, response: Response, settings: Settings) -> None:
    """Have the browser throw its cookie away."""
    set_session(request, response, settings, "", 0)


def sign_in_token(request: Request, settings: Settings) -> str:
    """What tells the browser that is shown the form for signing in from all others; empty where it has none yet."""
    return request.cookies.get(_name(SIGN_IN, request, settings), "")


def set_sign_in(request: Request, response: Response, settings: Settings) -> str:
    """Give the browser such a token for as long as it is open, and leave the one that it has: it may show the form twice."""
    token = sign_in_token(request, settings) or secrets.token_hex(16)
    _set(SIGN_IN, request, response, settings, token, None)
    return token


def csrf_token(token: str) -> str:
    return hmac.new(token.encode("utf-8", "replace"), b"attune csrf 1", hashlib.sha256).hexdigest()


def has_csrf_token(request: Request, token: str) -> bool:
    """Whether the request comes from a page that could read what this server told it."""
    return is_csrf_token(request.headers.get(CSRF_HEADER, ""), token)


def is_csrf_token(sent: str, token: str) -> bool:
    """Whether this is the CSRF token of the cookie's; none is that of no cookie."""
    return bool(token) and hmac.compare_digest(sent.encode("utf-8", "replace"), csrf_token(token).encode())


def _set(
    name: str, request: Request, response: Response, settings: Settings, value: str, max_age_seconds: int | None
) -> None:
    response.set_cookie(
        _name(name, request, settings),
        value,
        max_age=max_age_seconds,
        secure=is_https(request, settings),
        httponly=True,
        samesite="strict",
    )


def _name(name: str, request: Request, settings: Settings) -> str:
    return f"__Host-{name}" if is_https(request, settings) else name


def is_https(request: Request, settings: Settings) -> bool:
    """As clients see it: by the public address where there is one, else as the proxy or the connection says."""
    return (settings.public_url or str(request.base_url)).lower().startswith("https://")
