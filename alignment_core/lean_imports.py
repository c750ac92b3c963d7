"""The large libraries at two thirds of their price: every job, export and look into a model is a process that imports them anew.

Measured on two cores: 6.4 s of CPU and 540 MiB before a run knows its spec, 3.6 s and 440 MiB so. The lesser half is bitsandbytes
and scipy, which diffusers, peft and transformers import wherever they are installed, for quantised weights and for detecting
objects. The larger is Python's collector of garbage, which walks over all that has been imported again and again.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("bitsandbytes", "scipy")


@contextmanager
def lean_imports() -> Iterator[None]:
    """For the imports inside: a library that nothing here uses is not found, then and later, as the others have asked for it once.

    For a process of one command; who has imported it already keeps it.
    """
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType]  Python's own way to say that there is none
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()  # modules stay; no later collection need look at them


def let_in(name: str) -> None:
    """Have an import find the library after all."""
    if name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]
