"""What a run says of its pace: counted once, measured by the clock, and changing no number."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from alignment_core import align
from alignment_core.evaluation.draw_and_judge import DrawPlan, Judges, draw_and_judge
from alignment_core.events import CheckpointSaved, EvaluationCompleted, PhaseDivided, StepCompleted, ThroughputMeasured
from alignment_core.protocols import RewardModel
from alignment_core.training.throughput import Meter, flops_of, peak_tflops
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.test_alignment import of_type
from tests.alignment_core.tiny import tiny_spec

torch.set_num_threads(1)


def test_the_pace_is_worked_by_hand() -> None:
    meter = Meter(8, 3, torch.device("cpu"), flops_per_example=10**12)
    for seconds in (1.0, 3.0):
        meter.step(seconds)
    meter.saving_seconds, meter.waiting_seconds = 1.0, 0.5
    pace = meter.read()
    assert (pace.num_steps, pace.examples_per_second, pace.tflops_per_second) == (2, 4.0, 4.0)
    assert (pace.saving_share, pace.waiting_share) == (0.2, 0.1)
    assert pace.mfu is None
    assert pace.peak_host_gib > 0
    assert (meter.steps, meter.training_seconds, meter.saving_seconds) == (0, 0.0, 0.0)


def test_a_card_is_found_by_what_its_driver_calls_it() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA H100 PCIe") == 756
    assert peak_tflops("NVIDIA L40S") == 362
    assert peak_tflops("a card of next year") is None


def test_a_run_tells_its_pace_with_each_checkpoint_and_at_its_end(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, checkpoints={"every": 4})
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    told = of_type(events, ThroughputMeasured)
    assert [(event.step, event.throughput.num_steps) for event in told] == [(4, 4), (6, 2)]
    seconds = sum(step.step_seconds for step in of_type(events, StepCompleted)[:4])
    assert told[0].throughput.examples_per_second == pytest.approx(4 * 4 / seconds)
    assert told[1].throughput.saving_share > 0  # of the checkpoint of step 4
    assert of_type(events, EvaluationCompleted)[0].report["throughput"] == told[1].throughput.model_dump()
    assert [event.step for event in of_type(events, CheckpointSaved)] == [4, 6]


def test_what_steps_wait_for_is_told_as_what_it_is(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    online = list(align(online_spec(tiny_model, METHODS["tailorpo"]), tmp_path / "online", cache_dir=cache_dir))
    divided = [event for event in of_type(online, PhaseDivided) if event.phase == "training"]
    assert len(divided) == len(of_type(online, ThroughputMeasured)) > 0
    drawn, judged = (sum(event.seconds[part] for event in divided) for part in ("sampling", "scoring"))
    taken = sum(step.step_seconds for step in of_type(online, StepCompleted))
    assert 0 < judged < drawn < drawn + judged < taken
    pairs = list(align(tiny_spec(tiny_model, tiny_pairs), tmp_path / "pairs", cache_dir=cache_dir))
    assert {tuple(one.seconds) for one in of_type(pairs, PhaseDivided) if one.phase == "training"} == {
        ("waiting_for_data",)
    }


def test_judging_is_told_apart_from_drawing_in_a_report() -> None:
    def slow(images: Tensor, prompts: Sequence[str]) -> Tensor:
        time.sleep(0.05)
        return torch.zeros(len(images))

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        time.sleep(0.2)
        return torch.zeros(len(prompts), 3, 4, 4)

    plan = DrawPlan(["a", "b"], [[1], [2]], batch_size=1)
    told = list(draw_and_judge({"model": draw}, plan, Judges({"slow": cast(RewardModel, slow)})))
    (divided,) = [event for event in told if isinstance(event, PhaseDivided)]
    assert divided.phase == "sampling"
    assert divided.seconds["scoring"] >= 2 * 0.05


def test_flops_are_counted_forwards_and_back_and_leave_nothing(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    """LoRA: two forwards, and a backward of the activations' gradients alone, which is a little less than one more."""
    run = loaded(tiny_spec(tiny_model, tiny_pairs, evaluation={}), cache_dir)
    batch = next(run.method.batches(run.actors, run.timesteps, 0))
    with FlopCounterMode(display=False) as forwards, torch.no_grad():
        run.method.loss(run.actors, batch)
    of_one_network = forwards.get_total_flops() / 2 / len(batch.label)
    flops = flops_of(run.method, run.actors, batch, torch.float32)
    assert flops is not None
    assert 2.7 * of_one_network < flops < 3.3 * of_one_network
    assert all(parameter.grad is None for parameter in run.actors.trainable().values())
