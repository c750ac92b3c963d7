"""How a command ends that cannot go on: one message in red, and exit code 1."""

from typing import NoReturn

from rich.console import Console


def sentence_of(error: Exception) -> str:
    """What to show of an error; the operating system's own come as `[Errno 2] ...` otherwise."""
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def fail(message: str) -> NoReturn:
    Console(stderr=True).print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(1)
