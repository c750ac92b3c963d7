"""Pushes to the Hub from the command line, against a real API; what a worker would do is done to the row."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.main import create_app
from service.settings import Settings
from service.store import leases, pushes
from service.store.records.base import JobError
from tests.attune.test_cli_jobs import Attune, attune, url  # noqa: F401  fixtures
from tests.servers.process import wait_until
from tests.service.api.world import CATALOG, Api

COMMIT = f"https://hub.example.org/our-team/shapes/commit/{'c' * 40}"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", catalog_path=CATALOG, hub_namespaces=("our-team",))
    settings.data_dir.mkdir()
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield Api(client)


@pytest.fixture
def job_id(api: Api) -> str:
    found = api.new_job()
    attempt = api.claim(found)
    api.save_checkpoint(found, attempt, 4)
    leases.finish(api.parts.store, found, attempt, "succeeded")
    return found


def worked(api: Api, error: JobError | None = None) -> None:
    """What a worker does with the next push that waits."""
    store = api.parts.store
    wait_until(lambda: bool(pushes.next_pushes(store)), "a push that waits")
    claim = pushes.claim(store, pushes.next_pushes(store)[0], "worker", 60)
    assert claim is not None
    if error is not None:
        pushes.fail(store, claim.id, claim.attempt, error)
    else:
        pushes.finish(store, claim.id, claim.attempt, "c" * 40, COMMIT)


def test_a_jobs_result_is_pushed_waited_for_and_forgotten(api: Api, attune: Attune, job_id: str) -> None:  # noqa: F811
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(worked, api)
        done = attune("checkpoint", "push", job_id, "our-team/shapes", "--branch", "next", "--public")
        working.result()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{COMMIT}\n", "")
    checkpoint_id = api.checkpoint_id(job_id)
    (push,) = pushes.list_pushes(api.parts.store, checkpoint_id)
    assert (push.branch, push.is_private, push.format) == ("next", False, "diffusers")
    assert attune("checkpoint", "delete-push", checkpoint_id, push.id).stdout == "deleted\n"
    assert pushes.list_pushes(api.parts.store, checkpoint_id) == ()


def test_a_push_that_fails_says_why_and_one_that_may_not_be_is_refused(
    api: Api,
    attune: Attune,  # noqa: F811
    job_id: str,
) -> None:
    error = JobError(code="hub_denied", message="the Hub does not let this server in (401)", category="system")
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(worked, api, error)
        done = attune("checkpoint", "push", job_id, "our-team/shapes")
        working.result()
    assert done.returncode == 1
    assert "the Hub does not let this server in (401)" in done.stderr
    refused = attune("checkpoint", "push", job_id, "somebody/shapes")
    assert (refused.returncode, "not of 'somebody'" in refused.stderr) == (1, True)
