"""Two processes, started once a session for all that is asked of two."""

from collections.abc import Iterator

import pytest

from tests.alignment_core.collective.pair import Pair, new_pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with new_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture(scope="module", autouse=True)
def as_users_run(shapes_unchecked: None) -> None:
    """As the pair's processes run, which nothing checks."""
