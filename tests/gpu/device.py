"""Which device the tests of this folder run on: a GPU, or the CPU where that is asked for, as a check of the tests themselves."""

import os

import pytest
import torch

ON_CPU = "ATTUNE_GPU_TESTS_ON_CPU"
DEVICE = "cpu" if os.environ.get(ON_CPU) and not torch.cuda.is_available() else "cuda"
PRECISIONS = ("fp32", "bf16") if DEVICE == "cpu" else ("fp32", "bf16", "fp16")
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason=f"needs a CUDA device, or {ON_CPU}=1"
    ),
]
