"""Aligns a tiny trained model of each family on the demo's pictures: `python -m demo.families`.

The same preferences that the demo aligns its Stable Diffusion 1.x model with, given to an SDXL-shaped
and to an SD 3-shaped one through `alignment_core.align`. Ends with a picture and a table for each.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console

from alignment_core.quiet import silence_imports, silence_progress_bars
from attune.proof import table_of
from demo.families import FAMILIES

SHOWN_EVERY = 20  # steps


def main(argv: list[str] | None = None) -> int:
    """One family after the other; 0 when every aligned model is better than the one that it started from."""
    parser = argparse.ArgumentParser(prog="python -m demo.families", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/families"), help="folder for runs and reports")
    parser.add_argument("--only", choices=FAMILIES, help="one family rather than all")
    parser.add_argument("--steps", type=int, help="training steps, other than the job's own")
    arguments = parser.parse_args(argv)
    silence_imports()
    silence_progress_bars()
    console = Console(highlight=False, soft_wrap=True)
    names = [arguments.only] if arguments.only else FAMILIES
    verdicts = [show_alignment(name, arguments.out / name, arguments.steps, console) for name in names]
    return 0 if set(verdicts) == {"improved"} else 1


def show_alignment(name: str, workdir: Path, steps: int | None, console: Console) -> str:
    """Aligns one family's model in `workdir` and prints how; the verdict of its report."""
    from demo.families.job import aligned, family_job  # imports torch, which `silence_imports` has to precede

    started = time.monotonic()
    spec = family_job(name, **({} if steps is None else {"training": {"steps": steps}}))
    console.print(f"{name}: {spec.method.type} for {spec.training.steps} steps")

    def progress(step: int, total: int) -> None:
        if step % SHOWN_EVERY == 0 or step == total:
            console.print(f"{name}: step {step} of {total}")

    result = aligned(spec, workdir, progress)
    console.print(table_of(result.report))
    console.print(f"{name}: {time.monotonic() - started:.0f} s; picture {result.picture}, page {result.page}\n")
    return result.report.verdict


if __name__ == "__main__":
    raise SystemExit(main())
