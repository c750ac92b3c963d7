"""export(): a checkpoint in another form, as an iterator of events; `python -m alignment_core export` prints them."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from alignment_core.checkpoints import record_of
from alignment_core.errors import AlignmentError
from alignment_core.events import ExportCompleted, ExportProgressed
from alignment_core.exports.card import card_of
from alignment_core.exports.lora_formats import write_diffusers, write_kohya, write_peft
from alignment_core.exports.source import ExportSource, open_checkpoint
from alignment_core.exports.whole_formats import write_denoiser, write_merged, write_single_file
from alignment_core.reports import EvaluationReport
from alignment_core.spec.exports import CARD, ExportFormat, refusal
from alignment_core.spec.places import Sources


def export(
    checkpoint: Path,
    out: Path,
    format: ExportFormat,
    *,
    sources: Sources | None = None,
    report: EvaluationReport | None = None,
    cache_dir: Path | None = None,
) -> Iterator[ExportProgressed | ExportCompleted]:
    """Write `format` and a model card into the empty folder `out`; raises `AlignmentError` where there is no such form.

    The base model is only looked for by the formats that need it: kohya's for its configs, whole models for its weights;
    one that is a single file is unpacked to `cache_dir`, as a run does (default `~/.cache/attune`).
    """
    source = open_checkpoint(checkpoint, sources or Sources(), cache_dir or Path.home() / ".cache" / "attune")
    if (why_not := refusal(format, source.manifest.kind)) is not None:
        raise AlignmentError("format_not_available", why_not)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise AlignmentError("folder_not_empty", f"{out}: expected an empty folder for the export")
    for share in _written(source, out, format):
        yield ExportProgressed(percent=round(100 * share, 1))
    (out / CARD).write_text(card_of(source, format, report), encoding="utf-8")
    files = [record_of(out, path) for path in sorted(out.rglob("*")) if path.is_file()]
    yield ExportCompleted(files=files)


def _written(source: ExportSource, out: Path, format: ExportFormat) -> Iterator[float]:
    match format:
        case "peft":
            return write_peft(source, out)
        case "diffusers" if source.manifest.kind == "full":
            return write_denoiser(source, out)
        case "diffusers":
            return write_diffusers(source, out)
        case "kohya":
            return write_kohya(source, out)
        case "merged":
            return write_merged(source, out)
        case "single_file":
            return write_single_file(source, out)
        case _:
            assert_never(format)
