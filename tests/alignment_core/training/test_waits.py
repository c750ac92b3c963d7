"""A step asks the device for its numbers together: each number that is read by itself is a wait for all kernels before it."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core import align
from alignment_core.events import StepCompleted
from tests.alignment_core.tiny import UNJUDGED, tiny_spec


class Reads(TorchDispatchMode):
    """Counts numbers that are read of tensors, but for those of an optimiser, whose counts of steps lie on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.is_counting = 0, True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += self.is_counting and func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))

    def pause(self, *_: object) -> None:
        self.is_counting = False

    def go_on(self, *_: object) -> None:
        self.is_counting = True


@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
@pytest.mark.parametrize("method", ["diffusion_dpo", "diffusion_kto"])
def test_a_step_reads_no_number_by_itself(
    method: str, adapter: dict[str, object], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 3, "batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    spec = tiny_spec(
        tiny_model,
        tiny_pairs,
        method={"type": method, "dataset": {"type": "local", "path": str(tiny_pairs)}},
        adapter=adapter,
        training=training,
        evaluation=UNJUDGED,
    )
    reads, steps = Reads(), 0
    hooks = [register_optimizer_step_pre_hook(reads.pause), register_optimizer_step_post_hook(reads.go_on)]
    with closing(align(spec, tmp_path, cache_dir=cache_dir)) as run, ExitStack() as stack:
        stack.callback(lambda: [hook.remove() for hook in hooks])
        for event in run:
            if isinstance(event, StepCompleted):
                steps += 1
                if steps == 2:
                    break
                stack.enter_context(reads)  # of the second step
    assert reads.count == 0
    with reads:
        torch.ones(1).item()
    assert reads.count == 1
