"""`compare`: the report of a run, of any two checkpoints."""

from pathlib import Path

from pydantic import ValidationError

from alignment_core.commands.outcome import EXIT_COMPLETED, failed, failure_of, print_event
from alignment_core.errors import AlignmentError
from alignment_core.events import RunFailed
from alignment_core.lean_imports import lean_imports
from alignment_core.quiet import silence_progress_bars
from alignment_core.spec.places import Sources

DEFAULT_CACHE = Path.home() / ".cache" / "attune"


def compare(workdir: Path, base: str, policy: str, sources_path: Path | None, cache_dir: Path | None) -> int:
    with lean_imports():
        from alignment_core.prove.checkpoint_comparison import compare_checkpoints

    silence_progress_bars()
    try:
        sources = Sources.model_validate_json(sources_path.read_bytes()) if sources_path else Sources()
    except (ValidationError, OSError) as error:
        return failed(
            RunFailed(code="sources_invalid", message=f"{sources_path}: {error}", category="user", retryable=False)
        )
    try:
        for event in compare_checkpoints(
            workdir, base=base, policy=policy, sources=sources, cache_dir=cache_dir or DEFAULT_CACHE
        ):
            print_event(event)
    except AlignmentError as error:
        return failed(failure_of(error, None))
    return EXIT_COMPLETED
