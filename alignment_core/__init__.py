"""Align text-to-image diffusion models with human preferences: the algorithms, without any server.

    from alignment_core import JobSpec, align

The names are imported when they are first used, so that `alignment_core.spec` can be had without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment_core.alignment import align
    from alignment_core.errors import AlignmentError
    from alignment_core.spec import JobSpec

__all__ = ["AlignmentError", "JobSpec", "align"]

_HOMES = {
    "align": "alignment_core.alignment",
    "AlignmentError": "alignment_core.errors",
    "JobSpec": "alignment_core.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
