import pytest
import sqlalchemy as sa

from service.store import projects
from service.store.database import Store
from service.store.models import ApiKey
from service.store.projects import DEFAULT_PROJECT_ID


def test_the_default_project_exists(store: Store) -> None:
    found = projects.get_project(store, DEFAULT_PROJECT_ID)
    assert found is not None
    assert found.name == "Default"
    assert projects.get_project(store, "proj_none") is None


def test_a_key_opens_its_project(store: Store) -> None:
    project = projects.create_project(store, "lab")
    key, record = projects.create_key(store, project.id, "laptop")
    found = projects.authenticate(store, key)
    assert found is not None
    assert (found.project_id, found.id, found.scope) == (project.id, record.id, "admin")
    assert key.startswith(record.prefix)
    (listed,) = projects.list_keys(store, project.id)
    assert listed.last_used_at is not None
    assert listed.model_copy(update={"last_used_at": None}) == record


def test_the_secret_is_not_in_the_database(store: Store) -> None:
    key, record = projects.create_key(store, DEFAULT_PROJECT_ID, "laptop")
    secret = key.removeprefix(record.prefix)
    assert len(secret) > 40
    with store.read() as session:
        row = session.execute(sa.select(ApiKey.__table__)).one()
    assert not any(secret in str(value) for value in row)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1],
        lambda key: key + "x",
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
        lambda key: key[:19],
        lambda key: key.upper(),
        lambda _: "",
        lambda key: key + "\0",
        lambda key: key + "é",
        lambda _: "attune_%_%",
    ],
)
def test_a_wrong_key_opens_nothing(store: Store, spoil) -> None:
    key, _ = projects.create_key(store, DEFAULT_PROJECT_ID, "laptop")
    assert projects.authenticate(store, spoil(key)) is None


def test_a_revoked_key_opens_nothing(store: Store) -> None:
    key, record = projects.create_key(store, DEFAULT_PROJECT_ID, "laptop")
    other = projects.create_project(store, "other").id
    assert not projects.revoke_key(store, other, record.id)
    assert projects.authenticate(store, key) is not None
    assert projects.revoke_key(store, DEFAULT_PROJECT_ID, record.id)
    assert projects.authenticate(store, key) is None
    assert not projects.revoke_key(store, DEFAULT_PROJECT_ID, record.id)
    (listed,) = projects.list_keys(store, DEFAULT_PROJECT_ID)
    assert listed.revoked_at is not None
