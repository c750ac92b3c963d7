"""Pick-a-Pic parquet files (Kirstain et al., arXiv 2305.01569; columns of `yuvalkirstain/pickapic_v2`).

`label_0` is 1 when `jpg_0` won, 0 when `jpg_1` won, and 0.5 for a tie; ties keep that label. Rows without a label, or
whose images the authors marked as not different, are left out with a warning. Re-uploads that dropped `label_1`,
`has_label` or `are_different` are read as well.
"""

from collections.abc import Mapping

from alignment_core.datasets.parquet import ParquetLayout
from alignment_core.datasets.rows import Annotation, BadRow, annotate
from alignment_core.errors import DataError

IGNORED = frozenset({"best_image_uid", "created_at", "num_example_per_prompt", "ranking_id", "user_id"}) | frozenset(
    {"image_0_uid", "image_0_url", "image_1_uid", "image_1_url", "model_0", "model_1"}
)


def _annotate(number: int, values: Mapping[str, object]) -> Annotation | BadRow:
    if values.get("has_label") is False:
        return BadRow(number, "unlabeled_row", "warning", "has_label is false; nobody said which image is preferred")
    if values.get("are_different") is False:
        return BadRow(number, "images_not_different", "warning", "are_different is false; the two images are the same")
    label = values["label_0"]
    if label is None:
        raise DataError("invalid_label", "label_0 is empty; expected 0, 0.5 or 1")
    _check_other_label(label, values.get("label_1"))
    return annotate(number, prompt=values["caption"], first="jpg_0", second="jpg_1", label=label)


def _check_other_label(label_0: object, label_1: object) -> None:
    if not (isinstance(label_0, int | float) and isinstance(label_1, int | float)):
        return
    if abs(label_0 + label_1 - 1) > 1e-3:
        raise DataError("invalid_label", f"label_0 is {label_0} and label_1 is {label_1}; expected a sum of 1")


PICK_A_PIC = ParquetLayout(
    format="pick_a_pic",
    image_columns=("jpg_0", "jpg_1"),
    required=("caption", "label_0"),
    optional=("label_1", "has_label", "are_different"),
    annotate=_annotate,
    ignored=IGNORED,
)
