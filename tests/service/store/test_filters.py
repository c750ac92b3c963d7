"""Filters of the list of jobs are answered from an index, newest first, whether anything matches or not."""

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import jobs
from service.store.database import Store
from service.store.models import Job, JobLabel
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.store.plans import explain, sent_by

COUNT = 4000


@pytest.fixture
def many(store: Store) -> Store:
    """Thousands of jobs of one method, model and state, each with a team and a run of its own."""
    time = datetime.now(UTC)
    some = {"project_id": PROJECT, "spec": {}, "spec_sha256": "", "method": "dpok", "model": "shapes"}
    some |= {"labels": {}, "state": "succeeded", "created_at": time, "updated_at": time}
    ids = [f"job_{number:026}" for number in range(COUNT)]
    with store.write() as session:
        session.execute(sa.insert(Job), [{**some, "id": job_id} for job_id in ids])
        for key in ("team", "run"):
            pairs = [(job_id, "design" if key == "team" else job_id) for job_id in ids]
            rows = [{"job_id": job_id, "project_id": PROJECT, "key": key, "value": value} for job_id, value in pairs]
            session.execute(sa.insert(JobLabel), rows)
        session.execute(sa.text("ANALYZE"))
    return store


@pytest.mark.parametrize(
    ("filters", "index"),  # where everything matches, any index of jobs that is read from its end will do
    [
        ({}, "jobs"),
        ({"states": ["failed"]}, "ix_jobs_project_id_state_id"),
        ({"states": ["failed", "running"]}, "ix_jobs_project_id_state_id"),
        ({"states": ["succeeded"]}, "jobs"),
        ({"method": "mapo"}, "ix_jobs_project_id_method_id"),
        ({"method": "dpok"}, "jobs"),
        ({"model": "none"}, "ix_jobs_project_id_model_id"),
        ({"model": "shapes"}, "jobs"),
        ({"metadata": {"team": "sales"}}, "ix_job_labels_project_id_key_value_job_id"),
        ({"metadata": {"team": "design"}}, "ix_job_labels_project_id_key_value_job_id"),
        ({"metadata": {"team": "design", "run": "none"}}, "ix_job_labels_project_id_key_value_job_id"),
    ],
)
def test_filter_is_answered_from_its_index(many: Store, filters: dict, index: str) -> None:
    sent = sent_by(many)
    jobs.list_jobs(many, PROJECT, after_id=f"job_{COUNT - 10:026}", limit=20, **filters)
    ((statement, parameters),) = [one for one in sent if "FROM jobs" in one[0]]
    plan = explain(many, statement, parameters)
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan
    assert not [line for line in plan.splitlines() if line.strip().startswith(("SCAN jobs", "SCAN job_labels"))], plan


def test_pages_of_a_filter_are_newest_first_without_gaps(many: Store) -> None:
    asked: list[dict[str, Any]] = [
        {"states": ["succeeded", "failed"]},
        {"method": "dpok"},
        {"metadata": {"team": "design"}},
    ]
    for filters in asked:
        seen: list[str] = []
        while len(seen) < 50:
            page = jobs.list_jobs(many, PROJECT, after_id=seen[-1] if seen else None, limit=10, **filters)
            seen += [job.id for job in page.data]
        assert seen == [f"job_{number:026}" for number in range(COUNT - 1, COUNT - 51, -1)]
