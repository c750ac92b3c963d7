"""What a page costs to be painted first: `python -m benchmarks.pages [OUT] [--parts embedded full] [--jobs 100000] [--points 1000000] [--watchers 500]`.

One API process without workers, with so many jobs, a job of so many steps, and so many open streams of that job, which completes a step
every `--every` seconds. Each page is asked for in turns with an empty endpoint (`/healthz`) on a connection that is kept: first beside no
stream, then beside all of them. Prints a line each, writes them as JSON and a plot, and as a table between the marks of docs/operations.md.
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

from benchmarks.load import pages
from benchmarks.load.measures import Row, row
from benchmarks.load.server import PartsName, Server, serving
from benchmarks.load.watching import speaking, watching
from benchmarks.marks import put_between
from benchmarks.service_plot import draw_pages

PARTS: tuple[PartsName, ...] = ("embedded", "full")
TARGET_MS = 200
BEGIN, END = "<!-- pages: written by the benchmark -->", "<!-- pages: end -->"
TABLE = Path(__file__).parents[1] / "docs" / "operations.md"
NAMES = {"embedded": "SQLite, a directory", "full": "PostgreSQL, S3"}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of JSON and plot, without suffix")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=["embedded"])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=500)
    parser.add_argument("--every", type=float, default=0.1, help="seconds between two steps of the job that is watched")
    parser.add_argument("--times", type=int, default=15, help="that each page is asked for")
    parser.add_argument("--table", type=Path, default=TABLE, help="the page whose table is written anew with OUT")
    arguments = parser.parse_args(given)
    rows: list[Row] = []
    for found in measured(arguments):
        rows.append(found)
        sys.stdout.write(line_of(found) + "\n")
        sys.stdout.flush()
    if arguments.out is not None:
        report = report_of(rows, arguments)
        arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        draw_pages(report, arguments.out.with_suffix(".svg"))
        put_between(arguments.table, BEGIN, END, table_of(report))


def measured(arguments: argparse.Namespace) -> Iterator[Row]:
    for parts in arguments.parts:
        with serving(parts) as server:
            long_id = pages.long_job(server, arguments.points)
            addresses = pages.addresses(server, long_id, arguments.jobs)
            there = {what: path for what, path in addresses.items() if pages.is_there(server, path)}
            yield from painted(server, there, arguments.times, watchers=0)
            stream = f"{server.url}/v1/jobs/{long_id}/events"
            with (
                speaking(server.store, long_id, arguments.points, arguments.every),
                watching(stream, arguments.watchers) as heard,
            ):
                before = list(heard)
                yield from painted(server, there, arguments.times, watchers=arguments.watchers)
                went_on = sum(now > then for now, then in zip(heard, before, strict=True))
            assert went_on == arguments.watchers, f"only {went_on} of {arguments.watchers} streams went on"


def painted(server: Server, addresses: dict[str, str], times: int, watchers: int) -> Iterator[Row]:
    for what, path in addresses.items():
        seconds, base = server.median_seconds(lambda client, path=path: client.get(path), times)
        yield row(server, what, seconds, "/healthz", base, watchers=watchers, path=path)


def line_of(found: Row) -> str:
    late = "" if 1000 * found["seconds"] <= TARGET_MS else f"  over {TARGET_MS} ms"
    return (
        f"{found['parts']:8} {found['watchers']:5} watchers  {found['what']:48} {1000 * found['seconds']:8.1f} ms  "
        f"{found['ratio']:7.2f} x {found['against']} ({1000 * found['base_seconds']:.1f} ms){late}"
    )


def report_of(rows: list[Row], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "load": round(os.getloadavg()[1], 1),
        "target_ms": TARGET_MS,
        "jobs": arguments.jobs,
        "points": arguments.points,
        "watchers": arguments.watchers,
        "step_every_seconds": arguments.every,
        "rows": rows,
    }


def table_of(report: dict[str, Any]) -> str:
    """A line a page: milliseconds and ratio alone and beside the streams, for each set of parts."""
    parts = list(dict.fromkeys(one["parts"] for one in report["rows"]))
    found = {(one["parts"], one["what"], one["watchers"] > 0): one for one in report["rows"]}
    heads = [
        f"{NAMES[one]}: {beside}" for one in parts for beside in ("alone", f"beside {report['watchers']:,} streams")
    ]
    lines = [
        f"{report['jobs']:,} jobs, {report['points']:,} points of one, a step every {report['step_every_seconds']:g} s, "
        f"{report['date']}, {report['machine']}, load {report['load']}.",
        "",
        f"| ms (times `/healthz`), target {report['target_ms']} ms | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for what in dict.fromkeys(one["what"] for one in report["rows"]):
        cells = [
            _cell(found.get((one, what, beside)), report["target_ms"]) for one in parts for beside in (False, True)
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Row | None, target_ms: int) -> str:
    if found is None:
        return ""
    milliseconds = 1000 * found["seconds"]
    shown = f"{milliseconds:.0f} ({found['ratio']:.3g})"
    return shown if milliseconds <= target_ms else f"**{shown}**"


if __name__ == "__main__":
    main()
