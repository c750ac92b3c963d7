"""What is measured is what users run."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def as_users_run(shapes_unchecked: None) -> None:
    pass
