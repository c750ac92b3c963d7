"""What befalls a running service, done to real processes: `python -m benchmarks.faults [OUT] [--only WORDS] [--parts embedded full]`.

One deployment for each set of parts, with an API and two workers. For each fault a job of the demo, which the fault meets at a known
moment; then what the job came to: the longest time without a new step, seconds in which two of its attempts lived, events of an old
attempt that were taken, steps done twice, what had been acknowledged and was lost, and whether the weights are those of the job that
nothing befell, to the byte. Prints a line each, and writes them as JSON. docs/reliability.md says what follows from it.
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

from benchmarks.fault.deployment import SETTINGS, Deployment, PartsName, deployed
from benchmarks.fault.faults import FAULTS, Fault, NotHere
from benchmarks.fault.scene import Row, Scene, upload_pairs, weights_sha256

PARTS: tuple[PartsName, ...] = ("embedded", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of the JSON, without its suffix")
    parser.add_argument("--only", nargs="*", default=[], help="faults with one of these words in their name")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    chosen = [one for one in FAULTS if not arguments.only or any(word in one.name for word in arguments.only)]
    rows: list[dict[str, Any]] = []
    for parts in arguments.parts:
        for row in rows_of(parts, chosen):
            rows.append(row)
            sys.stdout.write(line_of(row) + "\n")
            sys.stdout.flush()
            if arguments.out is not None:  # what was measured is kept, whatever befalls this program
                arguments.out.with_suffix(".json").write_text(json.dumps(report_of(rows), indent=1) + "\n")
    sys.exit(any(row.get("broken", False) for row in rows))


def rows_of(parts: PartsName, chosen: list[Fault]) -> Iterator[dict[str, Any]]:
    """A row for each fault that there is on these parts."""
    wanted = [one for one in chosen if parts in one.parts]
    if not wanted:
        return
    with deployed(parts) as deployment:
        dataset_id = upload_pairs(deployment)
        undisturbed: dict[int, str] = {}
        for fault in wanted:
            if fault.processes not in undisturbed:
                undisturbed[fault.processes] = _undisturbed(deployment, dataset_id, fault.processes)
            if fault.moment == "caching":
                deployment.forget_caches()
                dataset_id = upload_pairs(deployment)  # what other workers know is known of a data set
            yield outcome_of(fault, deployment, dataset_id, undisturbed[fault.processes])
            deployment.heal()


def outcome_of(fault: Fault, deployment: Deployment, dataset_id: str, undisturbed: str) -> dict[str, Any]:
    scene = Scene(deployment, dataset_id, fault.processes)
    try:
        row = _met(fault, scene, undisturbed)
    except NotHere as reason:
        return {"fault": fault.name, "parts": deployment.parts, "skipped": str(reason)}
    except Exception as error:  # noqa: BLE001  one that went wrong is a finding, and no reason to leave out the others
        return {"fault": fault.name, "parts": deployment.parts, "broken": True, "error": repr(error)}
    return {**row.as_json(), "broken": not row.kept_its_promises}


def _met(fault: Fault, scene: Scene, undisturbed: str) -> Row:
    if fault.moment is not None:
        scene.submit()
        scene.reach(fault.moment)
    try:
        fault.happen(scene)
    finally:
        scene.close_if_unstruck()
    return scene.row(fault.name, undisturbed)


def _undisturbed(deployment: Deployment, dataset_id: str, processes: int) -> str:
    scene = Scene(deployment, dataset_id, processes)
    scene.submit()
    job = scene.end()
    with deployment.client as client:
        assert job.status == "succeeded", client.logs(job.id)
        return weights_sha256(client, job)


def line_of(row: dict[str, Any]) -> str:
    start = f"{row['parts']:8} {row['fault']:54}"
    if "skipped" in row:
        return f"{start} skipped: {row['skipped']}"
    if "error" in row:
        return f"{start} ERROR {row['error']}"
    recovery = "-" if row["recovery_seconds"] is None else f"{row['recovery_seconds']:.1f}"
    return (
        f"{start} stands still {recovery:>5} s  overlap {row['overlap_seconds']:.2f} s  stale {row['stale_writes']}  "
        f"twice {row['steps_twice']:2}  attempts {row['attempts']}  resumed {row['resumed_by_owner']}  lost {row['lost']}  "
        f"{row['status']}, weights {'equal' if row['weights_equal'] else 'DIFFERENT'}"
    )


def report_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "load": round(os.getloadavg()[0], 1),
        "settings": {key: float(value) for key, value in SETTINGS.items() if key.endswith("SECONDS")},
        "rows": rows,
    }


if __name__ == "__main__":
    main()
