"""A worker reads the files of models by the real command, and remembers what they say."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from alignment_core.spec import HubSource
from service.main import create_app
from service.store import known_models
from service.store.catalog import Catalog
from tests.servers.hub import COMMIT, REPO, hub_of
from tests.servers.process import wait_until
from tests.worker.conftest import World
from worker.models import read_models, start_reading
from worker.parts import WorkerParts

DEMO_MODEL = Path(__file__).parents[2] / "demo" / "assets" / "model"


def reader(world: World, catalog: Path | None = None) -> WorkerParts:
    """A worker whose processes are the library's own."""
    found = Catalog.load(catalog) if catalog else Catalog()
    return replace(world.worker(), catalog=found, trainer=(sys.executable, "-P", "-m", "alignment_core"))


@pytest.mark.slow  # two processes
def test_a_model_of_the_catalog_is_read_once_and_again_when_its_folder_changed(world: World) -> None:
    folder = shutil.copytree(DEMO_MODEL, world.root / "real")
    entry = {"type": "local", "path": "real", "family": "sd", "resolution": 32}
    (world.root / "models.json").write_text(json.dumps({"models": {"real": entry}}))
    parts = reader(world, world.root / "models.json")
    source = parts.catalog.models["real"].source
    read_models(parts)
    first = known_models.recall(world.store, source)
    assert first is not None
    assert first.report is not None
    assert (first.report.family, first.report.problem) == ("sd", None)

    read_models(replace(parts, trainer=("/nowhere",)))  # nothing is started: it is known

    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 9}))
    read_models(parts)
    second = known_models.recall(world.store, source)
    assert second is not None
    assert second.report is not None
    assert second.report.problem is not None
    assert "in_channels is 9" in second.report.problem.message


def test_a_model_of_the_hub_that_a_spec_named_is_read_with_this_workers_network(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HubSource(repo_id=REPO, revision=COMMIT)
    known_models.ask(world.store, source)
    monkeypatch.setenv("HF_HOME", str(world.root / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with hub_of(DEMO_MODEL) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        read_models(reader(world))
    known = known_models.recall(world.store, source)
    assert known is not None
    assert known.report is not None
    assert known.report.resolution == 32


@pytest.mark.slow
def test_a_model_that_cannot_be_read_keeps_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = HubSource(repo_id=REPO, revision=COMMIT)
    known_models.ask(world.store, source)
    read_models(reader(world))
    known = known_models.recall(world.store, source)
    assert known is not None
    assert known.error is not None
    assert "cannot be reached" in known.error


def test_a_worker_reads_what_is_asked_for_while_it_runs_and_stops_when_it_shuts_down(world: World) -> None:
    source = HubSource(repo_id=REPO, revision=COMMIT)
    known_models.ask(world.store, source)
    settings = world.settings.model_copy(update={"sweep_every_seconds": 0.05})
    parts = replace(world.worker(), settings=settings, trainer=("false",))
    thread = start_reading(parts)

    def is_tried() -> bool:
        known = known_models.recall(world.store, source)
        return known is not None and known.error == "the process that reads it ended with exit code 1"

    wait_until(is_tried, "a try to read the model")
    parts.shutting_down.set()
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.slow
def test_an_inpainting_model_of_the_hub_is_refused_at_post_once_a_worker_has_read_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(DEMO_MODEL, world.root / "inpainting")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 9}))
    online = {"type": "ddpo", "prompts": ["a red circle"], "reward": "brightness"}
    spec = {"model": HubSource(repo_id=REPO, revision=COMMIT).model_dump(), "method": online}
    monkeypatch.setenv("HF_HOME", str(world.root / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with TestClient(create_app(world.settings), base_url="http://localhost") as client, hub_of(folder) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        before = client.post("/v1/jobs/validate", json={"spec": spec}).json()
        assert before["valid"]
        assert any("no worker has read" in one for one in before["warnings"])
        read_models(reader(world))
        after = client.post("/v1/jobs", json={"spec": spec})
    assert after.status_code == 422
    (error,) = after.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/spec/model", "model_parts_mismatch")
    assert error["message"].startswith("unet/config.json: in_channels is 9; expected 4")
