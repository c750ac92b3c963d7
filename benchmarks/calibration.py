"""Whether the interval of an estimate of time holds as often as it says: `python -m benchmarks.calibration OUT`.

Real jobs of the demo's model, one after the other, through a service of its own: submitted over HTTP, claimed and run by a worker whose
training processes are real. Each job's interval is that of its own `estimate`, which was made from the jobs that had ended before it. Jobs
differ in shape, steps and batch. Prints whether the interval held, and writes every job as JSON, and a plot.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attune.client import Client
from attune.resources.jobs import Job
from benchmarks.estimate_plot import draw_calibration
from benchmarks.fault.deployment import deployed
from demo.assets import ASSETS

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Diffusion-DPO, LoRA": {"method": {"type": "diffusion_dpo"}},
    "MaPO, LoRA": {"method": {"type": "mapo"}},
}
STEPS, BATCHES = (4, 8, 12, 16, 24), (2, 4)
PROMPTS = ["a red circle", "a blue square"]
SAID = 0.8  # of the jobs lie within the interval, so it says
LONGEST_SECONDS = 600.0
WORKER = "one"


@dataclass(frozen=True)
class Foretold:
    """A job, what was said of its seconds before it, and those that it took from its claim on."""

    shape: str
    steps: int
    batch_size: int
    num_before: int
    expected: float
    low: float | None
    high: float | None
    took: float

    @property
    def held(self) -> bool | None:
        """None of a job that had too few before it for an interval."""
        return None if self.low is None or self.high is None else self.low <= self.took <= self.high


def spec_of(shape: str, dataset_id: str, steps: int, batch_size: int) -> dict[str, Any]:
    return {
        "model": "shapes",
        "method": {**SHAPES[shape]["method"], "dataset": dataset_id},
        "adapter": {"type": "lora", "rank": 4},
        "training": {
            "steps": steps,
            "batch_size": batch_size,
            "gradient_accumulation_steps": 1,
            "start_checks": False,
        },
        "evaluation": {"prompts": PROMPTS, "num_inference_steps": 4, "rewards": ["colorfulness"]},
        "resources": {"device": "cpu", "num_cpu_threads": 1},
    }


def foretold(num_judged: int, seed: int) -> Iterator[Foretold]:
    """Jobs of all shapes in turn, until so many had an interval."""
    draw, judged = random.Random(seed), 0  # noqa: S311 - which jobs, and no secret
    with deployed("embedded") as deployment:
        for worker in deployment.workers.values():
            worker.ask_to_stop()
            worker.wait(30)
        deployment.start_worker(WORKER, ATTUNE_WARM_TRAINER="true")
        with deployment.client as client:
            dataset_id = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id).id
            while True:
                for shape in SHAPES:
                    steps, batch_size = draw.choice(STEPS), draw.choice(BATCHES)
                    found = _run(client, shape, steps, batch_size, dataset_id)
                    yield found
                    judged += found.held is not None
                    if judged == num_judged:
                        return


def _run(client: Client, shape: str, steps: int, batch_size: int, dataset_id: str) -> Foretold:
    made = client.create_job(spec_of(shape, dataset_id, steps, batch_size))
    ended = client.wait_for_job(made.id, LONGEST_SECONDS)
    if ended.status != "succeeded" or ended.attempt != 1:
        raise RuntimeError(f"{ended.id} is {ended.status} after {ended.attempt} attempts: {ended.error}")
    client.delete_job(ended.id)  # what it teaches stays
    return _foretold(shape, steps, batch_size, ended)


def _foretold(shape: str, steps: int, batch_size: int, job: Job) -> Foretold:
    assert job.estimate is not None
    assert job.usage is not None
    said, usage = job.estimate["calibration"], job.usage
    assert usage.estimated_seconds is not None
    assert usage.over_estimate is not None
    return Foretold(
        shape=shape,
        steps=steps,
        batch_size=batch_size,
        num_before=said["num_jobs"],
        expected=usage.estimated_seconds,
        low=said["low"],
        high=said["high"],
        took=round(usage.over_estimate * usage.estimated_seconds, 2),
    )


def summary(jobs: Sequence[Foretold]) -> dict[str, Any]:
    """How many lay within, in all and by shape, and below and above."""
    judged = [one for one in jobs if one.held is not None]
    held = {shape: [bool(one.held) for one in judged if one.shape == shape] for shape in SHAPES}
    return {
        "num_jobs": len(jobs),
        "num_judged": len(judged),
        "said": SAID,
        "held": sum(map(sum, held.values())) / len(judged) if judged else None,
        "held_by_shape": {shape: f"{sum(one)} of {len(one)}" for shape, one in held.items()},
        "below": sum(one.low is not None and one.took < one.low for one in judged),
        "above": sum(one.high is not None and one.took > one.high for one in judged),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("calibration"), help="of JSON and plot, without suffix"
    )
    parser.add_argument("--jobs", type=int, default=50, help="so many whose interval is looked at; others come before")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jobs: list[Foretold] = []
    for one in foretold(arguments.jobs, arguments.seed):
        jobs.append(one)
        within = "" if one.low is None or one.high is None else f"[{one.low:6.1f}, {one.high:6.1f}] {one.held}"
        sys.stdout.write(f"{len(jobs):3} {one.shape} {one.steps:3} x {one.batch_size}  {one.took:6.1f} s {within}\n")
        sys.stdout.flush()
        told = {"date": time.strftime("%Y-%m-%d"), "seed": arguments.seed, **summary(jobs)}
        report = {**told, "jobs": [asdict(each) for each in jobs]}
        arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        draw_calibration(report, arguments.out.with_suffix(".svg"))
    sys.stdout.write(f"{json.dumps(summary(jobs))}\n")


if __name__ == "__main__":
    main()
