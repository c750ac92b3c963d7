"""The tables of two papers, scaled down to the demo model: `python -m benchmarks.reproduction`.

Runs what is missing in `--out`, then writes `docs/reproduction.{json,md,svg}`. Stop it and start it again as often as you like.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import plot, results
from benchmarks.cells import all_cells, run_missing
from benchmarks.page import missing_comparisons, page_of
from benchmarks.protocol import ROWS

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.render_only:
        found = results.load(arguments.docs / "reproduction.json")
    else:
        chosen = [cell for cell in all_cells() if not arguments.rows or cell.row.key in arguments.rows]
        for line in run_missing(chosen, arguments.out, jobs=arguments.jobs):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        found = results.collect(arguments.out, _commit())
        results.save(found, arguments.docs / "reproduction.json")
    (arguments.docs / "reproduction.md").write_text(page_of(found))
    plot.draw(found, arguments.docs / "reproduction.svg")
    sys.stderr.write(f"{len(found.runs)} runs, {missing_comparisons(found)} planned comparisons could not be made\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread (default 2)")
    parser.add_argument("--out", type=Path, default=Path("build/reproduction"), help="where each run's result is kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where page, plot and figures are written")
    parser.add_argument("--rows", nargs="+", choices=[row.key for row in ROWS], help="only these rows")
    parser.add_argument("--render-only", action="store_true", help="make page and plot of the figures in --docs again")
    return parser


def _commit() -> str:
    command = ["git", "-C", str(DOCS.parent), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
