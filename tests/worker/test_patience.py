"""A store that is away for a moment costs no run; one that stays away does."""

import pytest
from sqlalchemy.exc import OperationalError

from service.settings import Settings
from service.store.unavailable import ObjectsUnavailable
from worker.patience import patiently, wait_out

AWAY = [ObjectsUnavailable("no answer"), OperationalError("SELECT 1", {}, Exception("gone"))]


@pytest.mark.parametrize("error", AWAY, ids=["objects", "database"])
def test_a_write_is_tried_again_until_the_store_is_back(error: Exception) -> None:
    errors = [error]

    def write() -> str:
        if errors:
            raise errors.pop()
        return "written"

    assert patiently(write, patience_seconds=30) == "written"


@pytest.mark.parametrize("error", AWAY, ids=["objects", "database"])
def test_patience_ends(error: Exception) -> None:
    def write() -> str:
        raise error

    with pytest.raises(type(error)):
        patiently(write, patience_seconds=0.1)


def test_other_errors_are_not_waited_out() -> None:
    tries = []

    def write() -> None:
        tries.append(1)
        raise ValueError("a bad key")

    with pytest.raises(ValueError, match="a bad key"):
        patiently(write, patience_seconds=30)
    assert len(tries) == 1


def test_how_long_a_store_was_waited_for_is_told_once_it_is_back_and_not_otherwise() -> None:
    errors, told = [AWAY[0]], list[float]()

    def use() -> str:
        if errors:
            raise errors.pop()
        return "there"

    assert wait_out(use, Settings(), lambda: "go_on", told.append) == "there"
    assert told.pop() >= 0.5
    assert wait_out(use, Settings(), lambda: "go_on", told.append) == "there"
    assert told == []
