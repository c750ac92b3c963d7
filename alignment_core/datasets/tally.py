"""What preflight counts while rows go by. It keeps a few hashes of 16 bytes a row, and no image."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from alignment_core.datasets.problems import Problems
from alignment_core.datasets.prompt_checks import PromptChecks, digest
from alignment_core.datasets.rows import TIE, BadRow, PreferenceSource
from alignment_core.reports import SIDES, DatasetReport

MANY_TIES = 1 / 3
BIAS_Z = 4.0  # standard errors from 1/2 before the order of the images is called biased ...
BIAS_SHARE = 0.05  # ... and at least this far, since a large dataset is always some standard errors off
SIZES_REPORTED = 10

Size = tuple[int, int]  # width, height


def by_shorter_side(sizes: Mapping[Size, int]) -> dict[str, int]:
    """`DatasetReport.shorter_sides` of these sizes."""
    found = Counter[int]()
    for size, count in sizes.items():
        found[max(edge for edge in SIDES if edge <= min(size))] += count
    return {str(edge): found[edge] for edge in sorted(found)}


@dataclass(frozen=True, slots=True)
class InspectedRow:
    """A row whose two images decode: what the checks need of it."""

    number: int
    prompt: str
    label: float
    score: float | None
    group_id: str
    swapped: bool
    chosen_sha256: bytes
    rejected_sha256: bytes
    chosen_size: Size
    rejected_size: Size


class Tally:
    """Add every row, then ask for the report."""

    def __init__(self, source: PreferenceSource) -> None:
        self._source = source
        self._problems = Problems()
        self._content = hashlib.sha256()
        self._counts: Counter[str] = Counter()
        self._sizes: Counter[Size] = Counter()
        self._prompts = PromptChecks(self._problems)
        self._first_row_of_pair: dict[bytes, int] = {}

    def add(self, row: InspectedRow | BadRow) -> None:
        """Count one row and look for what is wrong with it."""
        self._counts["rows"] += 1
        if isinstance(row, BadRow):
            self._record([row.number, row.code, row.message])
            self._problems.add_bad(row)
            return
        hashes = row.chosen_sha256.hex(), row.rejected_sha256.hex()
        self._record([row.number, row.prompt, row.label, row.score, row.group_id, row.swapped, *hashes])
        self._count(row)
        self._prompts.add(row.number, row.prompt, row.group_id)
        self._check_images(row)
        self._check_repeats(row)

    @property
    def problems(self) -> Problems:
        """What was wrong so far."""
        return self._problems

    def report(self) -> DatasetReport:
        """The report on the rows so far."""
        self._check_overall()
        counts, decided = self._counts, self._counts["usable"] - self._counts["ties"]
        return DatasetReport(
            format=self._source.format,
            num_rows=counts["rows"],
            num_usable_rows=counts["usable"],
            num_groups=self._prompts.num_groups,
            num_unique_prompts=self._prompts.num_unique,
            num_empty_prompts=self._prompts.num_empty,
            num_ties=counts["ties"],
            num_soft_labels=counts["soft_labels"],
            num_swapped=counts["swapped"],
            chosen_first_share=counts["first_won"] / decided if self._has_first_image and decided else None,
            num_long_prompts=self._prompts.num_long,
            image_sizes={f"{w}x{h}": count for (w, h), count in self._sizes.most_common(SIZES_REPORTED)},
            shorter_sides=by_shorter_side(self._sizes),
            size_bytes=self._source.size_bytes(),
            content_sha256=self._content.hexdigest(),
            problems=self._problems.report(),
        )

    @property
    def _has_first_image(self) -> bool:
        return self._source.has_first_image

    def _record(self, values: list[object]) -> None:
        self._content.update(json.dumps(values, ensure_ascii=True).encode() + b"\n")

    def _count(self, row: InspectedRow) -> None:
        is_tie = row.label == TIE
        self._counts["usable"] += 1
        self._counts["ties"] += is_tie
        self._counts["soft_labels"] += TIE < row.label < 1
        self._counts["swapped"] += row.swapped
        self._counts["first_won"] += not is_tie and not row.swapped
        self._sizes.update((row.chosen_size, row.rejected_size))

    def _check_images(self, row: InspectedRow) -> None:
        if row.chosen_sha256 == row.rejected_sha256:
            self._counts["identical"] += 1
            self._warn("identical_images", row.number, "chosen and rejected are the same file; nothing can be learnt")
        if row.chosen_size != row.rejected_size:
            self._warn(
                "mixed_sizes",
                row.number,
                "the two images of the pair differ in size; both are resized and cropped, which may favour one",
            )
        if row.swapped and not self._has_first_image:
            self._warn("swapped_images", row.number, "the label is below 0.5, so chosen and rejected were swapped")

    def _check_repeats(self, row: InspectedRow) -> None:
        """A repeat is the same prompt with the same images; ties say the same either way round."""
        prompt = digest(row.prompt.encode())
        pair = digest(prompt + row.chosen_sha256 + row.rejected_sha256)
        reverse = digest(prompt + row.rejected_sha256 + row.chosen_sha256)
        if row.label == TIE:
            pair = reverse = digest(b"tie" + min(pair, reverse))
        earlier = self._first_row_of_pair.setdefault(pair, row.number)
        if earlier != row.number:
            self._warn("duplicate_rows", row.number, f"row {row.number} repeats row {earlier}; repeats count more")
        contradicted = self._first_row_of_pair.get(reverse)
        if pair != reverse and contradicted is not None:
            message = f"row {row.number} prefers the image that row {contradicted} rejects, for the same prompt"
            self._warn("contradictory_pairs", contradicted, message)
            self._warn("contradictory_pairs", row.number, message)

    def _check_overall(self) -> None:
        usable, ties = self._counts["usable"], self._counts["ties"]
        if usable == 0:
            message = f"none of {self._counts['rows']} rows can be trained on; expected at least one"
            self._problems.add_overall("no_usable_rows", "error", self._counts["rows"], message)
            return
        if ties == usable:
            self._problems.add_overall(
                "all_ties", "error", ties, "every row is a tie (label 0.5); none says what is better"
            )
        elif self._counts["identical"] == usable:
            message = "chosen and rejected are the same file in every row; nothing says what is better"
            self._problems.add_overall("all_identical", "error", usable, message)
        elif ties > MANY_TIES * usable:
            self._problems.add_overall(
                "many_ties", "warning", ties, f"{ties / usable:.0%} of the rows are ties (label 0.5)"
            )
        self._prompts.check_overall(usable)
        if columns := self._source.unread_columns():
            message = f"not read: {', '.join(columns)}; optional columns are label, score and group_id"
            self._problems.add_overall("unread_columns", "warning", self._counts["rows"], message)
        for note in self._source.notes:
            self._problems.add_overall("not_read", "warning", self._counts["rows"], note)
        self._check_position_bias(usable - ties)

    def _check_position_bias(self, decided: int) -> None:
        if not self._has_first_image or not decided:
            return
        share = self._counts["first_won"] / decided
        if abs(share - 0.5) > max(BIAS_SHARE, BIAS_Z * 0.5 / math.sqrt(decided)):
            message = f"the first image won {share:.0%} of the decided rows; expected about half"
            self._problems.add_overall("position_bias", "warning", decided, message)

    def _warn(self, code: str, row: int, message: str) -> None:
        self._problems.add(code, "warning", row, message)
