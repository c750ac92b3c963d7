"""Settings every test shares."""

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("ATTUNE_WARM_TRAINER", "false")  # a process that few tests' jobs would meet; tests of it say so

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import shape_checks

shape_checks.install()  # before the first module that is checked is imported
settings.register_profile(
    "attune", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
settings.load_profile("attune")
torch.set_num_threads(1)  # tiny models run many times faster on two cores

pytest_plugins = ("tests.servers.fixtures",)


@pytest.fixture(scope="module")
def shapes_unchecked() -> Iterator[None]:
    """For whole runs, as users have them: checks cost a third of their time, and the tests of the parts have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield
