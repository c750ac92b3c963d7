"""What the pages show: one of everything, a job of many points, and jobs of years; and the addresses of the pages of it."""

import httpx
from starlette.testclient import TestClient

from benchmarks.load.measures import SPEC, new_job
from benchmarks.load.rows import copy_jobs, copy_points
from benchmarks.load.server import Server
from service.main import create_app
from tests.browser.site import fill
from tests.service.api.conftest import LOCAL
from tests.service.api.world import Api, step_completed

POINTS_OF_A_CURVE = 1000


def long_job(server: Server, points: int) -> str:
    """One that runs, with so many steps behind it."""
    job_id = new_job(server)
    api = _api(server)
    api.say(job_id, 1, step_completed(1, points))
    copy_points(server.store, job_id, points)
    return job_id


def addresses(server: Server, long_id: str, jobs: int) -> dict[str, str]:
    """Of every page, by what it is, with so many jobs there."""
    found = fill(_api(server))
    newest = httpx.post(f"{server.url}/v1/jobs", json={"spec": SPEC}).raise_for_status().json()["id"]
    copy_jobs(server.store, newest, 1, jobs)
    middle = f"job_{jobs // 2:026d}"
    compared = "&".join(f"job={one}" for one in (long_id, found["finished"], found["running"]))
    curve = f"max_points={POINTS_OF_A_CURVE}&keep=extremes"
    return {
        "jobs": "/",
        "jobs by two states": "/?status=failed&status=cancelled",
        "jobs by method": "/?method=ddpo",
        "jobs by metadata": "/?metadata=team=7",
        "jobs, a page in the middle": f"/?after={middle}",
        "a job that runs, with its points": f"/jobs/{long_id}",
        "a job that has ended, with report and pictures": f"/jobs/{found['finished']}",
        "a job's log": f"/jobs/{found['finished']}/log",
        "three jobs compared": f"/compare?{compared}",
        "new job": "/jobs/new",
        "data sets": "/datasets",
        "a data set": f"/datasets/{found['dataset']}",
        "labeling": "/label",
        "a question of a labeling": f"/label/{found['labeling']}",
        "results of a labeling": f"/label/{found['labeling']}/results",
        "candidates to draw": "/label/draw",
        "candidates drawn": f"/label/draws/{found['candidates']}",
        "models": "/models",
        "playground": "/playground",
        "two pictures of the playground": f"/playground/{found['played']}",
        "curves of the job that runs": f"/v1/jobs/{long_id}/metrics?{curve}",
    }


def is_there(server: Server, path: str) -> bool:
    """Whether this service has such a page at all."""
    return httpx.get(server.url + path, timeout=600).status_code != 404


def _api(server: Server) -> Api:
    """The same service in this process, whose store's functions write what a worker would."""
    return Api(TestClient(create_app(server.settings), base_url=LOCAL))
