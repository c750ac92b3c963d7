"""What a resolved spec says where the one that was written may leave it out."""

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """The value of a field that resolving a spec fills in."""
    assert value is not None, "the spec is resolved"
    return value
