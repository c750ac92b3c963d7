"""Settings every test shares."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("ATTUNE_WARM_TRAINER", "false")  # a process that few tests' jobs would meet; tests of it say so

import torch
from hypothesis import settings

settings.register_profile("attune", deadline=None)  # a busy machine is no failure
settings.load_profile("attune")
torch.set_num_threads(1)  # tiny models run many times faster on two cores

pytest_plugins = ("tests.servers.fixtures",)
