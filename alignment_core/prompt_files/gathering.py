"""The set that the rows of a file make: each prompt once, and what was left out or cannot be one."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alignment_core.prompt_files import limits
from alignment_core.prompt_files.results import MOST_TOLD, BadRow, PromptsFile, PromptsRefused, PromptsReport, refused


@dataclass
class _Rows:
    """How many rows of a kind there are, and which are the first."""

    num: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.num += 1
        if self.num <= limits.MOST_ROWS_NAMED:
            self.first.append(row)


@dataclass
class _Gathered:
    """The set so far: what it has is known by short hashes, so that a million prompts fit into memory."""

    keep: Callable[[str], object]
    problems: list[BadRow] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    empty: _Rows = field(default_factory=_Rows)
    repeated: _Rows = field(default_factory=_Rows)
    digest: Any = field(default_factory=lambda: hashlib.sha256(b"["))
    num_rows: int = 0

    @property
    def has_enough(self) -> bool:
        """Whether reading on would tell nothing more."""
        return len(self.problems) == MOST_TOLD or any(one.row is None for one in self.problems)

    def add(self, row: int, found: str | BadRow) -> None:
        self.num_rows = max(self.num_rows, row)
        if row > limits.MOST_ROWS:
            self.problems.append(BadRow(None, "too_many_rows", f"there are more than {limits.MOST_ROWS:,} rows"))
            return
        bad = found if isinstance(found, BadRow) else _unfit(row, found)
        if bad is not None:
            self.problems.append(bad)
            return
        assert isinstance(found, str)
        mark = hashlib.blake2b(found.encode(), digest_size=16).digest()
        if not found.strip():
            self.empty.add(row)
        elif mark in self.seen:
            self.repeated.add(row)
        elif len(self.seen) == limits.MOST_PROMPTS:
            self.problems.append(
                BadRow(None, "too_many_prompts", f"there are more than {limits.MOST_PROMPTS:,} prompts")
            )
        else:
            self._take(mark, found)

    def _take(self, mark: bytes, prompt: str) -> None:
        self.digest.update((b"," if self.seen else b"") + json.dumps(prompt, ensure_ascii=False).encode())
        self.seen.add(mark)
        if not self.problems:
            self.keep(prompt)


def gathered(opened: PromptsFile, keep: Callable[[str], object]) -> PromptsReport:
    """Give `keep` each prompt of the set in turn; raises `PromptsRefused`."""
    found = _Gathered(keep)
    for row, one in opened.rows:
        found.add(row, one)
        if found.has_enough:
            break
    if not (found.seen or found.problems):
        raise refused("no_prompts", "there is no prompt in it")
    if found.problems:
        raise PromptsRefused(found.problems)
    found.digest.update(b"]")
    return PromptsReport(
        format=opened.format,
        column=opened.column,
        num_rows=found.num_rows,
        num_prompts=len(found.seen),
        num_duplicates=found.repeated.num,
        duplicate_rows=found.repeated.first,
        num_empty=found.empty.num,
        empty_rows=found.empty.first,
        sha256=found.digest.hexdigest(),
    )


def _unfit(row: int, prompt: str) -> BadRow | None:
    if len(prompt) > limits.LONGEST_PROMPT:
        return BadRow(
            row, "prompt_too_long", f"has {len(prompt)} characters, and a prompt at most {limits.LONGEST_PROMPT}"
        )
    if "\0" in prompt:
        return BadRow(row, "prompt_with_nul", "holds the character NUL")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return BadRow(row, "prompt_not_unicode", "holds half a surrogate pair, which is no text")
    return None
