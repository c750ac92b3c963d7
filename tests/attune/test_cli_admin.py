"""What the admins of a project do on the command line, against a real API."""

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from attune.client import Client
from service.store import leases, projects, quotas, sessions
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.attune.test_cli_jobs import api, attune, url  # noqa: F401  fixtures
from tests.service.api.world import Api, spec_for

Attune = Callable[..., subprocess.CompletedProcess[str]]


def test_keys_are_made_listed_rotated_and_revoked(api: Api, attune: Attune) -> None:  # noqa: F811
    made = attune("keys", "create", "ci", "--scope", "read", "--expires-in-days", "7")
    record = projects.authenticate(api.parts.store, made.stdout.strip())
    assert record is not None
    assert record.scope == "read"
    assert "only time" in made.stderr
    rotated = attune("keys", "rotate", record.id, "--grace-hours", "1").stdout.strip()
    assert projects.authenticate(api.parts.store, rotated) is not None
    assert attune("keys", "revoke", record.id).stdout.strip() == "revoked"
    lines = [line.split() for line in attune("keys", "list").stdout.splitlines()[2:]]
    assert [line[1:3] for line in lines] == [["read", "active"], ["read", "revoked"]]


def test_the_client_deals_in_keys(url: str) -> None:  # noqa: F811
    with Client(url) as client:
        made = client.admin.create_key("ci", scope="submit")
        assert made.key.startswith(made.prefix)
        assert client.admin.get_key(made.id).status == "active"
        new = client.admin.rotate_key(made.id, grace_seconds=0)
        assert new.rotated_from_id == made.id
        assert client.admin.revoke_key(new.id).status == "revoked"
        assert {one.status for one in client.admin.list_keys()} == {"expired", "revoked"}


def test_sessions_are_listed_and_ended(api: Api, attune: Attune) -> None:  # noqa: F811
    store = api.parts.store
    assert attune("sessions", "list").stdout.strip() == "nobody is signed in"
    _, key = projects.create_key(store, DEFAULT_PROJECT_ID, "laptop")
    _, opened = sessions.open_session(store, key, lifetime=timedelta(hours=1), remote="192.0.2.17")
    shown = attune("sessions", "list").stdout.split()
    assert opened.id in shown
    assert "192.0.2.17" in shown
    assert attune("sessions", "end", opened.id).stdout.strip() == "ended"
    assert attune("sessions", "list").stdout.strip() == "nobody is signed in"


def test_a_link_is_printed_whole(api: Api, attune: Attune, url: str) -> None:  # noqa: F811
    path = f"/v1/jobs/{api.new_job()}/events"
    assert attune("link", path, "--minutes", "1").stdout.strip() == url + path


def test_the_log_of_who_did_what_is_shown(api: Api, attune: Attune) -> None:  # noqa: F811
    job_id = api.new_job()
    attune("job", "cancel", job_id)
    assert job_id in attune("audit", "--object", job_id).stdout
    rows = [json.loads(line) for line in attune("audit", "--object", job_id, "--json").stdout.splitlines()]
    assert [row["action"] for row in rows] == ["POST /v1/jobs/{job_id}/cancel", "POST /v1/jobs"]
    assert rows[0]["remote"] == "127.0.0.1"
    assert attune("audit", "--outcome", "failed").stdout.strip() == "nothing was done"


def test_quotas_are_shown(api: Api, attune: Attune) -> None:  # noqa: F811
    quotas.set_limits(api.parts.store, DEFAULT_PROJECT_ID, {"jobs": 5, "bytes": 10**9})
    api.new_job()
    rows = {line.split()[0]: line.split()[1:] for line in attune("quotas").stdout.splitlines()[2:]}
    assert rows["jobs"] == ["1", "5"]
    assert rows["bytes"][-2:] == ["1.0", "GB"]
    assert rows["submits"][1] == "none"


def test_retention_is_set_and_shown_and_checkpoints_are_pinned(api: Api, attune: Attune) -> None:  # noqa: F811
    job_id = api.new_job()
    attempt = api.claim(job_id)
    for step in (1, 2):
        api.save_checkpoint(job_id, attempt, step)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    assert attune("retention", "show").stdout.strip() == "all checkpoints stay"
    assert attune("retention", "set", "--keep-last", "1", "--ttl-days", "30").stdout.strip() == "set"
    shown = attune("retention", "show", job_id).stdout.splitlines()
    assert "the last 1 stay beside the result" in shown[0]
    first = shown[3].split()
    assert first[1:] == ["GOES", "behind_keep_last"]
    assert attune("checkpoint", "pin", first[0]).stdout.strip() == "pinned"
    assert "pinned" in attune("checkpoint", "list", job_id).stdout
    assert attune("retention", "show", job_id).stdout.splitlines()[3].split()[1:] == ["stays", "pinned"]
    assert attune("checkpoint", "unpin", first[0]).stdout.strip() == "unpinned"
    assert attune("retention", "set", job_id).stdout.strip() == "set"
    assert "its own" in attune("retention", "show", job_id).stdout
    assert "the last 1 stay" in attune("retention", "give-up", job_id).stdout
    assert "of the project" in attune("retention", "show", job_id).stdout


def test_a_file_names_what_is_pinned_as_it_is_saved(api: Api, attune: Attune, tmp_path: Path) -> None:  # noqa: F811
    spec = {**spec_for(api.ready_dataset(), steps=4), "checkpoints": {"every": 2}}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"spec": spec, "pins": {"steps": [3]}}))
    refused = attune("job", "submit", str(path))
    assert "/pins/steps/0: no checkpoint is saved at step 3" in refused.stderr
    path.write_text(json.dumps({"spec": spec, "pins": {"steps": [2], "result": True}}))
    job_id = attune("job", "submit", str(path)).stdout.strip()
    assert "pinned as they are saved: step 2, the result" in attune("retention", "show", job_id).stdout


def test_what_jobs_took_is_shown(api: Api, attune: Attune) -> None:  # noqa: F811
    job_id = api.new_job(name="first")
    api.run(job_id)
    shown = attune("job", "show", job_id).stdout
    assert shown.splitlines()[0].split() == [job_id, "succeeded", "first"]
    assert any(line.split()[0] == "training" for line in shown.splitlines() if line.strip())
    assert "attempts" in shown
    summed = attune("usage").stdout
    assert "stored" in summed
    assert "estimated" not in summed, "a project's jobs have no estimate together"
    assert json.loads(attune("usage", "--json", "--since", "2026-01-01").stdout)["num_attempts"] >= 1


def test_a_job_that_failed_shows_why(api: Api, attune: Attune) -> None:  # noqa: F811
    job_id = api.new_job()
    why = JobError(code="diverged", message="the loss is not finite [step 2]", category="user")
    leases.finish(api.parts.store, job_id, api.claim(job_id), "failed", error=why)
    first, second, *_ = attune("job", "show", job_id).stdout.splitlines()
    assert first.split() == [job_id, "failed"]
    assert second == "the loss is not finite [step 2]"
