from pathlib import Path

import pytest

from demo.assets import ASSETS
from demo.sampling import load_pipeline


@pytest.fixture(scope="session")
def assets() -> Path:
    return ASSETS


@pytest.fixture(scope="session")
def pipeline(assets):
    return load_pipeline(assets / "model")
