"""Which software made the numbers."""

import platform
from importlib.metadata import version

_LIBRARIES = ("attune", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Attune, Python and the libraries that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
