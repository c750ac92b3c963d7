"""A served service with one of everything that pages show, and HTML wherever a user may write."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from alignment_core.evaluation.grid import Headline, draw_grid, places_in_grid
from alignment_core.events import PhaseChanged, SampleGrid, WarningRaised
from service.main import create_app
from service.settings import Settings
from service.store import leases, outputs, projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.browser.markup import marked
from tests.e2e.conftest import Deployment, embedded
from tests.service.api import test_candidates, test_labelings
from tests.service.api.browsable import browsable, flawed
from tests.service.api.conftest import LOCAL
from tests.service.api.world import CATALOG, Api, run_started, spec_for, step_completed

STEPS = 40


@dataclass(frozen=True)
class Site:
    """Where it is served, with keys asked for and without, and what there is."""

    address: str
    keyed_address: str
    key: str
    api: Api
    dataset: str
    finished: str
    running: str
    failed: str
    candidates: str
    labeling: str
    played: str

    @property
    def ids(self) -> dict[str, str]:
        """What stands for the names in the paths of pages."""
        return {
            "job_id": self.finished,
            "dataset_id": self.dataset,
            "candidates_id": self.candidates,
            "labeling_id": self.labeling,
        }


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Two API processes over one database: whoever comes to one needs no key, and to the other one does."""
    with embedded() as settings:
        settings |= {"CATALOG_PATH": str(CATALOG), "SIGN_INS_PER_MINUTE": "1000"}
        api = seeding_api(Path(settings["DATA_DIR"]))
        filled = fill(api)
        key, _ = projects.create_key(api.parts.store, DEFAULT_PROJECT_ID, "reader")
        served = [
            Deployment(folder / "open", settings),
            Deployment(folder / "keyed", {**settings, "API_KEYS_REQUIRED": "true"}),
        ]
        try:
            for one in served:
                one.start_api()
            addresses = [f"http://127.0.0.1:{one.port}" for one in served]
            yield Site(*addresses, key=key, api=api, **filled)
        finally:
            for one in served:
                one.stop()


def seeding_api(data_dir: Path) -> Api:
    """The same service in this process, whose store's functions write what a worker would."""
    settings = Settings(data_dir=data_dir, catalog_path=CATALOG)
    migrate(settings.resolved_database_url)
    return Api(TestClient(create_app(settings), base_url=LOCAL))


def fill(api: Api) -> dict[str, str]:
    """Ids of one thing of each kind."""
    dataset = browsable(api, flawed(marked("prompt of a pair")), name=marked("data set"))
    spec = spec_for(dataset)
    named = {"name": marked("job"), "metadata": {"team": marked("metadata")}}
    finished, running, failed = (api.new_job(spec=spec, **named) for _ in range(3))
    finish(api, finished)
    start(api, running)
    fail(api, failed)
    api.new_job(spec=spec, name="waits for a worker")
    prompts = [marked("first prompt"), marked("second prompt")]
    body = {"spec": {**test_candidates.SPEC, "prompts": prompts}, "name": marked("candidates")}
    candidates = api.client.post("/v1/candidates", json=body).json()["id"]
    test_candidates.drawn(api, candidates)
    labeling = test_labelings.created(api, candidates, name=marked("labeling"))
    checkpoint_id = api.checkpoint_id(finished)
    played = play(api, checkpoint_id)
    for alias, reason in (("champion", None), ("liked", marked("reason"))):
        body = {"checkpoint_id": checkpoint_id, "alias": alias, **({"force": True, "reason": reason} if reason else {})}
        api.client.post("/v1/promotions", json=body).raise_for_status()
    return {
        "dataset": dataset,
        "played": played,
        "finished": finished,
        "running": running,
        "failed": failed,
        "candidates": candidates,
        "labeling": labeling,
    }


def play(api: Api, checkpoint_id: str) -> str:
    """What a model and a checkpoint have drawn in the playground."""
    contenders = [{"name": "base", "model": "shapes"}, {"name": "aligned", "model": checkpoint_id}]
    asked = {"prompt": marked("prompt of the playground"), "seed": 7, "contenders": contenders}
    played = api.client.post("/v1/playground", json=asked).json()["id"]
    test_candidates.drawn(api, played)
    return played


def finish(api: Api, job_id: str) -> None:
    """The whole life of a job, with pictures of two steps and a log in which a prompt stands."""
    attempt = api.claim(job_id)
    api.say(job_id, attempt, run_started(api.spec_of(job_id), STEPS), PhaseChanged(phase="training"))
    for step in range(1, STEPS + 1):
        api.say(job_id, attempt, step_completed(step, STEPS))
    for step in (STEPS // 2, STEPS):
        prompts = [marked("prompt of a picture"), "a small blue star"]
        api.draw_sample(job_id, attempt, step, prompts, *grid_of(prompts, step))
    api.save_checkpoint(job_id, attempt, STEPS)
    api.evaluate(job_id, attempt, STEPS)
    outputs.put_log(api.parts.store, job_id, attempt, f"loading\n{marked('log')}\n")
    leases.finish(api.parts.store, job_id, attempt, "succeeded")


def grid_of(prompts: list[str], step: int) -> tuple[bytes, SampleGrid]:
    """A picture as runs draw them, and where in it each image stands: at this step all of base are red, and all of the other blue."""
    base, policy = (
        np.full((len(prompts), 2, 32, 32, 3), color, np.uint8) for color in ((255, step, 0), (0, step, 255))
    )
    file = io.BytesIO()
    draw_grid(prompts, base, policy, Headline("colorfulness", "how it was measured")).save(file, "png")
    return file.getvalue(), places_in_grid(prompts, [(7, 8)] * len(prompts), base)


def start(api: Api, job_id: str) -> int:
    """A job that trains and warns; its attempt."""
    attempt = api.claim(job_id)
    api.say(job_id, attempt, run_started(api.spec_of(job_id), STEPS), PhaseChanged(phase="training"))
    for step in range(1, STEPS // 4):
        api.say(job_id, attempt, step_completed(step, STEPS))
    api.say(job_id, attempt, WarningRaised(code="margin_saturation", message=marked("warning"), step=5))
    return attempt


def fail(api: Api, job_id: str) -> None:
    attempt = api.claim(job_id)
    error = JobError(code="out_of_memory", message=marked("error"), category="capacity", hint="a smaller batch")
    leases.finish(api.parts.store, job_id, attempt, "failed", error)
