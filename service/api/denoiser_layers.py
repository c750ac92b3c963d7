"""Whether an uploaded denoiser's layers are a model's, as far as both files' headers say it; norms and biases are left to the run."""

from collections.abc import Iterator
from itertools import islice

from alignment_core.model_files import ModelReport
from alignment_core.reports import LoraReport

MOST_NAMED = 3


def unfit_denoiser(report: LoraReport, model: ModelReport) -> str | None:
    """Which layers are missing, too many, or of another shape; None where there are none such, or where nobody has read either."""
    if not report.shapes or not model.layers:
        return None
    found = _differences(report.shapes, model.layers)
    told = list(islice(found, MOST_NAMED))
    more = sum(1 for _ in found)
    return "; ".join(told) + (f"; and {more} more" if more else "") if told else None


def _differences(own: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> Iterator[str]:
    for name in sorted(own.keys() | expected.keys()):
        if name not in own:
            yield f"the model's layer {name!r} is missing"
        elif name not in expected:
            yield f"{name!r} is no layer of the model's denoiser"
        elif own[name] != expected[name]:
            yield f"{name!r} has the shape {list(own[name])}, and in the model it has {list(expected[name])}"
