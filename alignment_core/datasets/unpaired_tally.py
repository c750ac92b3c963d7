"""What preflight counts of single judged images while rows go by; see `tally` for pairs."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

from alignment_core.datasets.problems import Problems
from alignment_core.datasets.prompt_checks import PromptChecks, digest
from alignment_core.datasets.rows import BadRow, Source
from alignment_core.datasets.tally import SIZES_REPORTED, Size, by_shorter_side
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.reports import DatasetReport


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """A row whose image decodes: what the checks need of it."""

    number: int
    prompt: str
    liked: bool
    group_id: str
    sha256: bytes
    size: Size


class UnpairedTally:
    """Add every row, then ask for the report."""

    def __init__(self, source: Source[ImageAnnotation]) -> None:
        self._source = source
        self._problems = Problems()
        self._prompts = PromptChecks(self._problems)
        self._content = hashlib.sha256()
        self._num_rows = 0
        self._judged: Counter[bool] = Counter()
        self._sizes: Counter[Size] = Counter()
        self._images: set[bytes] = set()
        self._first_row: dict[tuple[bytes, bool], int] = {}

    def add(self, row: InspectedImage | BadRow) -> None:
        """Count one row and look for what is wrong with it."""
        self._num_rows += 1
        if isinstance(row, BadRow):
            self._record([row.number, row.code, row.message])
            self._problems.add_bad(row)
            return
        self._record([row.number, row.prompt, row.liked, row.group_id, row.sha256.hex()])
        self._judged[row.liked] += 1
        self._sizes[row.size] += 1
        self._images.add(digest(row.sha256))
        self._prompts.add(row.number, row.prompt, row.group_id)
        self._check_repeats(row)

    @property
    def problems(self) -> Problems:
        """What was wrong so far."""
        return self._problems

    def report(self) -> DatasetReport:
        """The report on the rows so far."""
        self._check_overall()
        return DatasetReport(
            kind="unpaired",
            format=self._source.format,
            num_rows=self._num_rows,
            num_usable_rows=self._judged.total(),
            num_groups=self._prompts.num_groups,
            num_unique_prompts=self._prompts.num_unique,
            num_empty_prompts=self._prompts.num_empty,
            num_ties=0,
            num_soft_labels=0,
            num_likes=self._judged[True],
            num_dislikes=self._judged[False],
            num_swapped=0,
            num_long_prompts=self._prompts.num_long,
            image_sizes={f"{w}x{h}": count for (w, h), count in self._sizes.most_common(SIZES_REPORTED)},
            shorter_sides=by_shorter_side(self._sizes),
            size_bytes=self._source.size_bytes(),
            content_sha256=self._content.hexdigest(),
            problems=self._problems.report(),
        )

    def _record(self, values: list[object]) -> None:
        self._content.update(json.dumps(values, ensure_ascii=True).encode() + b"\n")

    def _check_repeats(self, row: InspectedImage) -> None:
        image = digest(digest(row.prompt.encode()) + row.sha256)
        earlier = self._first_row.setdefault((image, row.liked), row.number)
        if earlier != row.number:
            self._warn("duplicate_rows", row.number, f"row {row.number} repeats row {earlier}; repeats count more")
        contradicted = self._first_row.get((image, not row.liked))
        if contradicted is not None:
            message = f"rows {contradicted} and {row.number} like and dislike the same image for the same prompt"
            self._warn("contradictory_labels", contradicted, message)
            self._warn("contradictory_labels", row.number, message)

    def _check_overall(self) -> None:
        usable = self._judged.total()
        if usable == 0:
            message = f"none of {self._num_rows} rows can be trained on; expected at least one"
            self._problems.add_overall("no_usable_rows", "error", self._num_rows, message)
            return
        if usable > 1 and len(self._images) == 1:
            message = "every row shows the same picture; nothing tells good from bad"
            self._problems.add_overall("all_identical", "error", usable, message)
        if len(self._judged) == 1:
            verdict = "liked" if self._judged[True] else "disliked"
            message = f"every image is {verdict} (label {int(self._judged[True] > 0)}); nothing tells good from bad"
            self._problems.add_overall("one_label", "warning", usable, message)
        self._prompts.check_overall(usable)
        if columns := self._source.unread_columns():
            message = f"not read: {', '.join(columns)}; the optional column is group_id"
            self._problems.add_overall("unread_columns", "warning", self._num_rows, message)

    def _warn(self, code: str, row: int, message: str) -> None:
        self._problems.add(code, "warning", row, message)
