"""From where prompts are to the prompts."""

from collections.abc import Generator
from pathlib import Path
from typing import TypeVar, assert_never

from alignment_core.errors import DataError
from alignment_core.events import Event, WarningRaised
from alignment_core.prompt_files import PromptsRefused, PromptsReport, read_prompts
from alignment_core.spec import (
    CandidatesSpec,
    EvaluationSpec,
    JobSpec,
    LocalPrompts,
    OnlineMethodSpec,
    PromptSetSource,
    ProofSpec,
)
from alignment_core.spec.counted import counted
from alignment_core.spec.sources import Prompts

Section = TypeVar("Section", OnlineMethodSpec, EvaluationSpec, ProofSpec, CandidatesSpec)


def with_prompts(spec: JobSpec) -> Generator[Event, None, JobSpec]:
    """The spec with its prompts in place of where they are, warning of rows that were left out.

    `DataError` where a file cannot be read, or has others by now than the spec says by their hash.
    """
    method = spec.method
    if isinstance(method, OnlineMethodSpec):
        method = yield from read_in(method, "method.prompts")
    evaluation = spec.evaluation
    if evaluation.prompts is not None:
        evaluation = yield from read_in(evaluation, "evaluation.prompts")
    return spec.model_copy(update={"method": method, "evaluation": evaluation})


def read_in(section: Section, field: str) -> Generator[Event, None, Section]:
    """The same of a part of a spec that has prompts, which `field` names."""
    match section.prompts:
        case tuple() | None:
            return section
        case PromptSetSource(id=found):
            raise DataError("prompt_set_missing", f"{field}: {found} is known to a service alone; name a file here")
        case LocalPrompts() as source:
            prompts, report = _read(source, field)
            if report.num_duplicates or report.num_empty:
                yield _left_out(report, field)
            return section.model_copy(update={"prompts": prompts})
        case _:
            assert_never(section.prompts)


def _read(source: LocalPrompts, field: str) -> tuple[Prompts, PromptsReport]:
    prompts: list[str] = []
    path = Path(source.path)
    try:
        report = read_prompts(path, path.name, prompts.append, column=source.column)
    except PromptsRefused as error:
        raise DataError("prompts_unreadable", f"{field}: {path.name}: {error}") from error
    except OSError as error:
        raise DataError("prompts_unreadable", f"{field}: {path}: {error.strerror}") from error
    if source.sha256 not in (None, report.sha256):
        message = f"{field}: {path.name} holds other prompts than the spec says: their hash is {report.sha256}"
        raise DataError("prompts_altered", message)
    return tuple(prompts), report


def _left_out(report: PromptsReport, field: str) -> WarningRaised:
    repeats = (
        f"{counted(report.num_duplicates, 'repeat')} (rows {_some(report.duplicate_rows)})"
        if report.num_duplicates
        else ""
    )
    empty = f"{counted(report.num_empty, 'empty row')} ({_some(report.empty_rows)})" if report.num_empty else ""
    message = f"{field}: {' and '.join(filter(None, [repeats, empty]))} left out, {counted(report.num_prompts, 'prompt')} used"
    return WarningRaised(code="prompts_left_out", message=message)


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
