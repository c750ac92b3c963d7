"""Speak to an Attune server from Python.

    from attune import AttuneError, Client

The names are imported when they are first used, so that a process that needs neither does not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attune.client import Client
    from attune.errors import AttuneError

__all__ = ["AttuneError", "Client"]

_HOMES = {"AttuneError": "attune.errors", "Client": "attune.client"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
