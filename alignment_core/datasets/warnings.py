"""What a run warns of in its data once model and resolution are known."""

from collections.abc import Iterator, Sequence

from alignment_core.datasets.prompt_lengths import PromptLengths
from alignment_core.datasets.rows import Annotation
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.events import WarningRaised
from alignment_core.reports import DatasetReport
from alignment_core.spec.warnings import small_images


def data_warnings(
    report: DatasetReport, rows: Sequence[Annotation | ImageAnnotation], lengths: PromptLengths, resolution: int
) -> Iterator[WarningRaised]:
    """Prompts that are cut, and images far below the resolution."""
    if num_cut := sum(row.prompt in lengths.cut for row in rows):
        yield lengths.warning("prompts of the rows", num_cut, len(rows))
    if message := small_images(report, resolution):
        yield WarningRaised(code="images_below_resolution", message=message)
