"""MLflow: a run in the tracking server or store of `MLFLOW_TRACKING_URI`, in the experiment `MLFLOW_EXPERIMENT_NAME`.

MLflow gives its runs ids of its own, so the run of a job is found by its tag. A point that is logged twice is there twice, so what
the run has of a metric is asked for when a job goes on, and is not told again.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from PIL import Image

from alignment_core.tracking.points import Began, Ending, Gains, Picture, Saved, Scalars, Told, markdown

JOB_TAG = "attune.job_id"
EXPERIMENT = "attune"  # where the operator names none
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 500  # of one request, and characters
STATUSES: Mapping[Ending, str] = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflowRun:
    def __init__(self) -> None:
        self._client = MlflowClient()
        self._run_id = ""
        self._has_until: dict[str, int] = {}

    def tell(self, told: Sequence[Told]) -> list[Path]:
        """Points that come together go in one request."""
        points = [one for one in told if isinstance(one, Scalars)]
        for one in told:
            self._tell(one)
        self._log(points)
        return []

    def end(self, ending: Ending) -> list[Path]:
        if self._run_id:
            self._client.set_terminated(self._run_id, STATUSES[ending])
        return []

    def _tell(self, told: Told) -> None:
        match told:
            case Began():
                self._begin(told)
            case Scalars() | Saved():
                pass
            case Picture():
                with Image.open(told.path) as picture:
                    self._client.log_image(self._run_id, picture, key="samples", step=told.step)
            case Gains():
                self._log([Scalars(told.step, told.values)])
                self._client.set_tag(self._run_id, "attune.verdict", told.verdict)
                self._client.log_text(self._run_id, markdown(told), "report.md")
            case _:
                assert_never(told)

    def _begin(self, began: Began) -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        wanted = f"tags.`{JOB_TAG}` = '{began.run_id.replace(chr(39), '')}'"
        runs = self._client.search_runs([experiment], wanted, max_results=1)
        if runs:
            self._run_id = runs[0].info.run_id
            self._has_until = {key: self._last_step(key) for key in runs[0].data.metrics}
            self._client.update_run(self._run_id, status="RUNNING")
            return
        tags = {**began.tags, JOB_TAG: began.run_id.replace("'", "")}
        self._run_id = self._client.create_run(experiment, run_name=began.name).info.run_id
        params = [Param(key, value) for key, value in flat(began.config)]
        self._client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        for some in _in_parts(params, MOST_PARAMS):
            self._client.log_batch(self._run_id, params=some)
        self._client.log_dict(self._run_id, began.config, "spec.json")

    def _last_step(self, key: str) -> int:
        return max((one.step for one in self._client.get_metric_history(self._run_id, key)), default=-1)

    def _log(self, points: Sequence[Scalars]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, point.step)
            for point in points
            for name, value in point.values.items()
            if point.step > self._has_until.get(name, -1)
        ]
        for some in _in_parts(metrics, MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=some)


def _in_parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The parameters that MLflow shows in columns: `method.beta`, and lists as JSON."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{above}{name}", text[:LONGEST_PARAM]
