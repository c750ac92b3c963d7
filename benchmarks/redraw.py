"""Plots anew from the figures beside them, without measuring: `python -m benchmarks.redraw [NAME...] [--docs FOLDER]`.

Reads NAME.json of each and writes NAME.svg, which is what the benchmark of that name draws; without names those that lie in the folder.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import estimate_plot, precision_plot, service_plot, speed_plot
from benchmarks.step import page

DOCS = Path(__file__).parents[1] / "docs"
PLOTS: Mapping[str, Callable[[dict[str, Any], Path], None]] = {
    "performance": page.draw,
    "caching": speed_plot.draw_caching,
    "decoding": speed_plot.draw_decoding,
    "evaluation": speed_plot.draw_drawing,
    "rollout": speed_plot.draw_drawing,
    "scaling": speed_plot.draw_scaling,
    "shards": speed_plot.draw_shards,
    "start": speed_plot.draw_start,
    "memory": estimate_plot.draw_memory,
    "collective_memory": estimate_plot.draw_collective_memory,
    "peak": estimate_plot.draw_peak,
    "durations": estimate_plot.draw_durations,
    "calibration": estimate_plot.draw_calibration,
    "precision": precision_plot.draw_precision,
    "latent_precision": precision_plot.draw_latent_precision,
    "service": service_plot.draw_service,
    "pages": service_plot.draw_pages,
    "thumbnails": service_plot.draw_thumbnails,
}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PLOTS))
    parser.add_argument("--docs", type=Path, default=DOCS, help="where figures are read and plots written")
    arguments = parser.parse_args(given)
    if unknown := [name for name in arguments.names if name not in PLOTS]:
        parser.error(f"no plot {', '.join(unknown)}; there are {', '.join(PLOTS)}")
    for name in arguments.names or [name for name in PLOTS if (arguments.docs / f"{name}.json").exists()]:
        redraw(name, arguments.docs, arguments.docs / f"{name}.svg")
        sys.stdout.write(f"{name}.svg\n")


def redraw(name: str, docs: Path, path: Path) -> None:
    PLOTS[name](json.loads((docs / f"{name}.json").read_text()), path)


if __name__ == "__main__":
    main()
