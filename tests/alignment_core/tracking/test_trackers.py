"""What each tool has of a run, read back with that tool's own code; and that none of them can harm the run."""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from alignment_core.events import CheckpointSaved, Event, RunCompleted, TrackingFileWritten, WarningRaised
from alignment_core.spec.trackers import TrackerName
from alignment_core.tracking.points import MOST_ITEMS, Ending, Subject, Told, shortened, told_of
from alignment_core.tracking.relay import Relay
from alignment_core.tracking.secrets import without_secrets
from alignment_core.tracking.trackers import Trackers
from tests.alignment_core.tracking.story import JOB_ID, after_the_loss, before_the_loss, loss_of, step, subject
from tests.servers.mlflow import MLFLOW, mlflow_server


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has much else to do a client takes its time."""
    monkeypatch.setattr("alignment_core.tracking.trackers.SAVE_SECONDS", 120.0)
    monkeypatch.setattr("alignment_core.tracking.trackers.END_SECONDS", 120.0)


def told(name: TrackerName, workdir: Path, events: Sequence[Event], ending: Ending | None) -> list[Event]:
    """The stream that comes of the events; the process of an attempt without an ending was killed."""
    trackers = Trackers([name], subject(workdir))
    stream = [one for event in events for one in trackers.hear(event)]
    if ending is not None:
        stream += trackers.end(ending)
    else:
        (relay,) = trackers._relays
        relay.catch_up(120.0)  # a database that is new takes a while
    assert [one.message for one in stream if isinstance(one, WarningRaised)] == []
    return stream


def test_tensorboard_shows_each_step_once_after_a_worker_was_lost(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, second, logdir = tmp_path / "attempt-1", tmp_path / "attempt-2", tmp_path / "logdir"
    lost = told("tensorboard", first, before_the_loss(), None)
    subject(second)
    kept = told("tensorboard", second, after_the_loss(second), "completed")
    kinds = [type(one) for one in lost if isinstance(one, TrackingFileWritten | CheckpointSaved)]
    assert kinds == [TrackingFileWritten, CheckpointSaved], "who goes on from a checkpoint finds what came before it"
    assert isinstance(kept[-1], RunCompleted), "nothing follows the end of a run"
    logdir.mkdir()
    for number, (workdir, stream) in enumerate(((first, lost), (second, kept))):
        for index, one in enumerate(one for one in stream if isinstance(one, TrackingFileWritten)):
            (logdir / f"events.out.tfevents.{number}{index}").write_bytes((workdir / one.path).read_bytes())
    found = EventAccumulator(str(logdir), size_guidance={"images": 0}).Reload()
    losses = [(one.step, one.value) for one in found.Scalars("train/loss")]
    assert losses == [(number, pytest.approx(loss_of(number))) for number in range(1, 7)]
    assert found.Scalars("validation/loss")[0].value == pytest.approx(0.7)
    assert found.Scalars("report/brightness/gain_low")[0].value == pytest.approx(0.05)
    assert [one.step for one in found.Images("samples")] == [6]
    spec = found.Tensors("spec/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"beta": 2000.0' in spec
    table = found.Tensors("report/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| brightness | 0.4 | 0.5 | 0.1 | 0.05 | 0.15 | 0.75 |" in table


def test_files_of_a_lost_attempt_alone_hold_all_steps_up_to_its_checkpoint(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = [
        one for one in told("tensorboard", tmp_path, before_the_loss(), None) if isinstance(one, TrackingFileWritten)
    ]
    steps = [
        event.step for event in EventFileLoader(str(tmp_path / file.path)).Load() if event.HasField("summary")
    ]  # the spec and tags at 0, then two figures a step
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own queries
def test_mlflow_goes_on_in_the_run_of_the_job_and_doubles_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts of a store without a server lie beside it
    mlflow_goes_on(f"sqlite:///{tmp_path / 'mlflow.sqlite3'}", tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.skipif(MLFLOW not in os.environ, reason=f"{MLFLOW} names no `mlflow` that has a server")
def test_a_server_of_mlflow_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, artifacts too: `mlflow-skinny`, which workers have, speaks to the server of the whole `mlflow`."""
    with mlflow_server(os.environ[MLFLOW], tmp_path / "server") as url:
        mlflow_goes_on(url, tmp_path, monkeypatch)


def mlflow_goes_on(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose first worker is lost, as MLflow has it afterwards."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told("mlflow", tmp_path / "attempt-1", before_the_loss(), None)
    workdir = tmp_path / "attempt-2"
    subject(workdir)
    told("mlflow", workdir, after_the_loss(workdir), "completed")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("attune")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("shapes", "FINISHED")
    assert {key: run.data.tags[key] for key in ("attune.job_id", "team", "attune.verdict")} == {
        "attune.job_id": JOB_ID,
        "team": "design",
        "attune.verdict": "improved",
    }
    assert run.data.params == {"method.type": "diffusion_dpo", "method.beta": "2000.0", "seed": "7"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(number, loss_of(number)) for number in range(1, 7)]
    assert run.data.metrics["report/brightness/gain"] == 0.1
    folder = Path(client.download_artifacts(run.info.run_id, ""))
    assert json.loads((folder / "spec.json").read_text())["seed"] == 7
    assert "| brightness |" in (folder / "report.md").read_text()
    assert list((folder / "images").glob("samples*.png"))


def test_wandb_has_the_run_under_the_id_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.alignment_core.tracking.wandb_file import records_of

    monkeypatch.setenv("WANDB_MODE", "offline")
    subject(tmp_path)
    told("wandb", tmp_path, after_the_loss(tmp_path), "completed")
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(records_of(path))
    (run,) = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.display_name) == (JOB_ID, "shapes")
    assert "team:design" in run.tags
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert config["method"] == {"type": "diffusion_dpo", "beta": 2000.0}
    rows = [
        {"|".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        for one in records
        if one.WhichOneof("record_type") == "history"
    ]
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (number, loss_of(number)) for number in (4, 5, 6)
    ]
    leaves = {name: value for row in rows for name, value in row.items()}
    assert [leaves[f"samples|{name}"] for name in ("width", "height", "caption")] == [4, 2, "a red circle"]
    assert leaves["report|nrows"] == 1


def scalars(event: Event) -> list[Told]:
    return list(told_of(event, Subject(Path())))


class Broken:
    """A client that raises at the first point, as one does whose server refuses it."""

    def tell(self, told: Sequence[Told]) -> list[Path]:
        raise ConnectionError(f"401 for https://me:hunter2@tracker.example.org with {os.environ['TRACKER_API_KEY']}")

    def end(self, ending: Ending) -> list[Path]:
        raise AssertionError("a tracker that failed is told nothing more")


class Hanging:
    def __init__(self, until: threading.Event) -> None:
        self._until = until

    def tell(self, told: Sequence[Told]) -> list[Path]:
        self._until.wait(60)
        return []

    def end(self, ending: Ending) -> list[Path]:
        return []


def test_a_tracker_that_refuses_is_one_warning_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_API_KEY", "abcdef0123456789")
    relay = Relay("wandb", Broken, scalars)
    for number in range(100):
        relay.tell(step(number + 1))
    relay.end("completed", 10.0)
    (warning,) = relay.warnings()
    assert (warning.code, relay.is_hung) == ("tracker_failed", False)
    assert warning.message.endswith("ConnectionError: 401 for https://***@tracker.example.org with ***")


def test_a_client_that_is_not_installed_is_a_warning_too() -> None:
    def opened() -> Broken:
        raise ModuleNotFoundError("No module named 'wandb'")

    relay = Relay("wandb", opened, scalars)
    relay.tell(step(1))
    relay.end("completed", 10.0)
    assert "No module named 'wandb'" in next(relay.warnings()).message


def test_a_tracker_that_hangs_takes_no_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment_core.tracking.relay.MOST_WAITING", 10)
    until = threading.Event()
    relay = Relay("mlflow", lambda: Hanging(until), scalars)
    began = time.monotonic()
    for number in range(1000):
        relay.tell(step(number + 1))
    took = time.monotonic() - began
    relay.end("completed", 0.1)
    assert [one.code for one in relay.warnings()] == ["tracker_behind", "tracker_hung"]
    assert relay.is_hung
    assert took < 5.0
    until.set()


def test_no_process_but_the_first_of_a_run_has_trackers(tmp_path: Path) -> None:
    trackers = Trackers([], subject(tmp_path))
    assert [one.type for one in trackers.hear(step(1))] == ["step_completed"]
    assert not trackers.is_hung


def test_a_spec_of_many_prompts_is_told_in_short() -> None:
    told = shortened({"method": {"prompts": ["a"] * 100_000, "seeds": [1, 2]}})
    assert told["method"]["seeds"] == [1, 2]
    assert told["method"]["prompts"][MOST_ITEMS:] == ["and 99950 more"]


def test_what_an_error_says_is_one_short_line() -> None:
    assert without_secrets("first\nsecond") == "first"
    assert len(without_secrets("x" * 10_000)) == 300
