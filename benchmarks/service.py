"""What the service bears: `python -m benchmarks.service [OUT] [--parts embedded full] [--jobs 100000 1000000] [--gigabytes 2]`.

One API process without workers on each set of parts. Submits, lists and single jobs with many jobs in the database, a job of a
million steps, a thousand open streams, large files up and down. Every figure is a ratio to what it could cost at best in the same run:
an empty endpoint (`/healthz`), a plain copy, plain boto3. Prints a line each; writes them as JSON and as a plot.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import watchers
from benchmarks.load.measures import Row, lists, points, row, submits, transfers
from benchmarks.load.server import PartsName, Server, serving
from benchmarks.service_plot import draw_service

PARTS: tuple[PartsName, ...] = ("embedded", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of JSON and plot, without their suffixes")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--jobs", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for found in measured(arguments):
        rows.append(found)
        sys.stdout.write(line_of(found) + "\n")
        sys.stdout.flush()
        if arguments.out is not None:  # each as it comes: the largest take long
            arguments.out.with_suffix(".json").write_text(json.dumps(report_of(rows), indent=1) + "\n")
    if arguments.out is not None:
        draw_service(report_of(rows), arguments.out.with_suffix(".svg"))


def measured(arguments: argparse.Namespace) -> Iterator[Row]:
    for parts in arguments.parts:
        with serving(parts) as server:
            yield from submits(server)
            yield from transfers(server, int(arguments.gigabytes * 1e9))
            yield from points(server, arguments.points)
            yield from watched(server, arguments.watchers)
            yield from lists(server, arguments.jobs)


def watched(server: Server, count: int) -> Iterator[Row]:
    """A GET beside so many open streams, against one beside none: in a service of its own, on the same kind of database."""
    url = "" if server.parts == "embedded" else str(server.settings.database_url)
    none, many = watchers.measured([0, count], url)
    yield row(
        server,
        f"one job beside {count:,} watchers",
        many.median_seconds,
        "beside none",
        none.median_seconds,
        served=many.num_served,
        transactions_per_second=round(many.transactions_per_second, 1),
    )


def line_of(found: Row) -> str:
    return (
        f"{found['parts']:8} {found['what']:44} {1000 * found['seconds']:10.1f} ms  "
        f"{found['ratio']:8.2f} x {found['against']} ({1000 * found['base_seconds']:.1f} ms)"
    )


def report_of(rows: list[Row]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "load": round(os.getloadavg()[1], 1),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
