"""Prompts beyond what the text encoder reads: how many there are, and which of them are one prompt to it.

CLIP reads 75 tokens between its marks of start and end, and the rest is cut. Prompts that differ behind the cut give the same
conditioning, so they belong on the same side of the split, or a held-out prompt would have been trained on. Only rows whose
group is that of their own prompt move, and only those with a prompt that is cut: other splits stay as they are.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from alignment_core.datasets.rows import Annotation
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.datasets.values import default_group_id
from alignment_core.events import WarningRaised

Tokenize = Callable[[Sequence[str]], list[list[int]]]
MARKS = 2  # of start and end
RowT = TypeVar("RowT", Annotation, ImageAnnotation)


@dataclass(frozen=True)
class PromptLengths:
    """Which prompts are cut: their first tokens by prompt, and the groups of prompts that are just as long as is read."""

    num_read: int
    cut: dict[str, tuple[int, ...]]
    whole: dict[tuple[int, ...], str]

    def group_of(self, prompt: str) -> str:
        """The group of a prompt that is cut."""
        read = self.cut[prompt]
        return self.whole.get(read) or "read:" + hashlib.sha256(repr(read).encode()).hexdigest()[:32]

    def warning(self, of: str, num_cut: int, num: int) -> WarningRaised:
        """What to say of `num_cut` prompts of `num`; `of` says which."""
        message = (
            f"{num_cut} of {num} {of} are longer than the {self.num_read} tokens that the text encoder reads; what comes after "
            "them has no effect, and prompts that differ only there are one prompt"
        )
        return WarningRaised(code="prompts_cut", message=message)


def measure(prompts: Iterable[str], tokenize: Tokenize, max_tokens: int) -> PromptLengths:
    """Tokenize what may be too long: no token is shorter than a byte."""
    num_read = max_tokens - MARKS
    long = [prompt for prompt in dict.fromkeys(prompts) if len(prompt.encode()) >= num_read]
    tokens = dict(zip(long, tokenize(long), strict=True)) if long else {}
    cut = {prompt: tuple(ids[:num_read]) for prompt, ids in tokens.items() if len(ids) > num_read}
    whole = {tuple(ids): default_group_id(prompt) for prompt, ids in tokens.items() if len(ids) == num_read}
    return PromptLengths(num_read, cut, whole)


def grouped_by_what_is_read(rows: Sequence[RowT], lengths: PromptLengths) -> list[RowT]:
    """The rows, with one group for those that the text encoder cannot tell apart; groups that the data names stay."""
    return [
        replace(row, group_id=lengths.group_of(row.prompt))
        if row.prompt in lengths.cut and row.group_id == default_group_id(row.prompt)
        else row
        for row in rows
    ]
