"""What thumbnails add to the check of a data set, as a ratio: `python -m benchmarks.thumbnails [OUT]`.

The demo pairs, whose images are 32 pixels wide, and pairs of photographs. Both ways take turns; seconds of the processor, which other work on the machine
hardly changes. Writes them as JSON and as a plot, where OUT says so.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignment_core.datasets.preflight import check_and_show, check_preferences
from benchmarks.caching import photograph
from benchmarks.service_plot import draw_thumbnails
from benchmarks.speed import paired_ratio, save

DEMO_PAIRS = Path(__file__).parents[1] / "demo" / "assets" / "pairs.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of JSON and plot, without suffix")
    parser.add_argument("--pairs", type=int, default=60, help="of photographs")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    report: dict[str, Mapping[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        photographs = pairs_of_photographs(Path(folder) / "photographs.parquet", arguments.pairs)
        for name, path in (("demo pairs", DEMO_PAIRS), ("photographs", photographs)):
            found = report[name] = measured(path, Path(folder), arguments.rounds)
            values = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
            sys.stdout.write(f"{name}: {values}\n")
    if arguments.out is not None:
        save({"data_sets": report}, arguments.out.with_suffix(".json"))
        draw_thumbnails({"data_sets": report}, arguments.out.with_suffix(".svg"))


def pairs_of_photographs(path: Path, num: int) -> Path:
    rows = {
        "prompt": [f"prompt {number}" for number in range(num)],
        "chosen": [photograph(2 * number) for number in range(num)],
        "rejected": [photograph(2 * number + 1) for number in range(num)],
    }
    pq.write_table(pa.table(rows), path)
    return path


def measured(path: Path, folder: Path, rounds: int) -> Mapping[str, float]:
    """Seconds of both ways, the ratio, and the size of what is kept against that of the data set."""
    plain: list[float] = []
    shown: list[float] = []
    kept = folder / "browsing"
    for number in range(rounds + 1):  # the first one warms what is imported and read
        kept.unlink(missing_ok=True)
        first = _timed(lambda: check_preferences(path))
        second = _timed(lambda: check_and_show(path, None, "fail", kept, path.name))
        if number:
            plain.append(first)
            shown.append(second)
    return {
        "rows": pq.read_metadata(path).num_rows,
        "seconds without": min(plain),
        "seconds with": min(shown),
        "ratio": paired_ratio(shown, plain),
        "share of the file": kept.stat().st_size / path.stat().st_size,
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
