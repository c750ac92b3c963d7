"""A request looks a thing up once, and the next request looks anew."""

import threading

from sqlalchemy import event

from service.api.once import once, one_request
from service.store.database import Store
from tests.service.api.world import Api, spec_for


def test_a_request_looks_once_and_the_next_one_again() -> None:
    found = iter(range(10))
    with one_request():
        assert [once("key", lambda: next(found)), once("key", lambda: next(found))] == [0, 0]
        assert once("another", lambda: next(found)) == 1
    with one_request():
        assert once("key", lambda: next(found)) == 2
    assert [once("key", lambda: next(found)), once("key", lambda: next(found))] == [3, 4], "outside of any"


def transactions_of(store: Store) -> list[int]:
    begun: list[int] = []
    event.listen(store.engine, "begin", lambda _: begun.append(threading.get_ident()))
    return begun


def test_a_spec_is_checked_in_few_transactions(api: Api) -> None:
    """There were some fifty, one for each check that asks what the model is, or what the workers have."""
    body = {"spec": spec_for(api.ready_dataset())}
    begun = transactions_of(api.parts.store)
    assert api.client.post("/v1/jobs", json=body).status_code == 201
    assert len(begun) < 25, begun
