from pathlib import Path

import pytest

from service.settings import Settings
from service.store import projects
from service.store.__main__ import main
from service.store.audit_lists import list_entries
from service.store.database import Store, open_store


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTUNE_DATA_DIR", str(tmp_path / "data"))
    assert main(["migrate"]) == 0
    store = open_store(Settings().resolved_database_url)
    yield store
    store.close()


def test_an_operator_makes_a_project_and_a_key_that_opens_it(opened: Store, capsys) -> None:
    assert main(["create-project", "Design team"]) == 0
    project_id = capsys.readouterr().out.strip()
    assert main(["create-key", project_id, "build server"]) == 0
    key = capsys.readouterr().out.strip()
    found = projects.authenticate(opened, key)
    assert found is not None
    assert (found.project_id, found.name, found.scope) == (project_id, "build server", "admin")


def test_an_operator_rotates_a_key_and_says_what_it_may(opened: Store, capsys) -> None:
    main(["create-key", "proj_default", "ci", "--scope", "read", "--expires-in-days", "7"])
    old = capsys.readouterr().out.strip()
    (record,) = projects.list_keys(opened, "proj_default")
    assert record.scope == "read"
    assert main(["rotate-key", "proj_default", record.id, "--grace-hours", "0"]) == 0
    new = projects.authenticate(opened, capsys.readouterr().out.strip())
    assert new is not None
    assert (new.scope, new.rotated_from_id) == ("read", record.id)
    assert new.expires_at is not None
    assert projects.authenticate(opened, old) is None
    done = list_entries(opened, "proj_default").data
    assert [one.action for one in done] == ["service.store rotate-key", "service.store create-key"]
    assert done[0].key_id is None


def test_a_revoked_key_is_listed_as_such(opened: Store, capsys) -> None:
    main(["create-key", "proj_default", "old laptop"])
    key = capsys.readouterr().out.strip()
    (record,) = projects.list_keys(opened, "proj_default")
    assert main(["revoke-key", "proj_default", record.id]) == 0
    assert projects.authenticate(opened, key) is None
    main(["list-keys", "proj_default"])
    listed = capsys.readouterr().out
    assert "old laptop" in listed
    assert "revoked" in listed
    assert key not in listed


def test_projects_are_listed_with_the_ids_that_the_other_commands_want(opened: Store, capsys) -> None:
    main(["create-project", "Design team"])
    project_id = capsys.readouterr().out.strip()
    assert main(["list-projects"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["proj_default", project_id]
    assert rows[1][1] == "Design team"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create-key", "proj_none", "x"], "no project 'proj_none'"),
        (["list-keys", "proj_none"], "no project 'proj_none'"),
        (["revoke-key", "proj_default", "key_none"], "no key 'key_none'"),
    ],
)
def test_what_does_not_exist_is_named(opened: Store, capsys, arguments: list[str], message: str) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_an_operator_says_what_a_project_may_take(opened: Store, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_QUOTA_SUBMITS_PER_HOUR", "60")
    assert main(["set-quota", "proj_default", "--jobs", "20", "--gpu-hours", "none"]) == 0
    assert main(["show-quotas", "proj_default"]) == 0
    rows = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["jobs"] == "0\tof 20"
    assert rows["submits"] == "0\tof 60"
    assert rows["bytes"] == "0\tno limit"
    assert main(["set-quota", "proj_default", "--jobs", "server", "--submits", "none"]) == 0
    main(["show-quotas", "proj_default"])
    assert "jobs\t0\tno limit" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["set-quota", "proj_default", "--jobs", "-3"])
