"""What is new in the log of a job, by a mark of what a page has: nobody is sent what they have, and nothing that is read is touched.

Only the end of an attempt's output is kept, so no number of letters says where to go on: the last letters that a page has are looked for
at the ends of lines, by their digest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MARKED = 1_000  # letters before the mark, which it is found by
NOTHING = "0:"


class Piece(NamedTuple):
    """Text of an attempt; `follows` where it goes on from what the page has."""

    attempt: int
    text: str
    follows: bool = False


def shown(logs: Sequence[Mapping[str, Any]], has_ended: bool) -> list[Piece]:
    """Every attempt, the earliest first; of the one that may still write whole lines alone."""
    found = [Piece(one["attempt"], one["text"]) for one in logs]
    if found and not has_ended:
        found[-1] = found[-1]._replace(text=found[-1].text[: found[-1].text.rfind("\n") + 1])
    return found


def mark_of(pieces: Sequence[Piece]) -> str:
    """Of the end of the last one."""
    return f"{pieces[-1].attempt}:{_digest(pieces[-1].text, len(pieces[-1].text))}" if pieces else NOTHING


def news(pieces: Sequence[Piece], mark: str) -> list[Piece]:
    """What comes after the mark; all of an attempt in which it is no longer, or that is a later one."""
    name, _, digest = mark.partition(":")
    attempt = int(name) if name.isdecimal() and len(name) < 10 else 0
    later = [one for one in pieces if one.attempt >= attempt]
    if not later or later[0].attempt != attempt or (place := _place(later[0].text, digest)) is None:
        return later
    rest = Piece(attempt, later[0].text[place:], follows=True)
    return [*([rest] if rest.text else []), *later[1:]]


def _place(text: str, digest: str) -> int | None:
    """Where the mark is, the last such place; None where the text no longer has it."""
    ends = [0, *(at + 1 for at, letter in enumerate(text) if letter == "\n"), len(text)]
    return next((end for end in reversed(ends) if _digest(text, end) == digest), None)


def _digest(text: str, end: int) -> str:
    return hashlib.sha256(text[max(0, end - MARKED) : end].encode()).hexdigest()[:16]
