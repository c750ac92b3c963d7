"""What only a CUDA device can show: half precision, its loss scale, and a run that moves between devices."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from alignment_core import align
from alignment_core.actors.lora_forward import switched
from alignment_core.checkpoints import folder_of, verify
from alignment_core.events import (
    Event,
    MicroBatchChosen,
    PhaseChanged,
    PrecisionChosen,
    PrecisionMeasured,
    RunStarted,
    StepCompleted,
    ThroughputMeasured,
    WarningRaised,
)
from alignment_core.training import saving
from tests.alignment_core.test_alignment import same_weights
from tests.alignment_core.tiny import tiny_spec
from tests.alignment_core.training.test_micro_batch import SmallDevice
from tests.gpu.device import DEVICE, MARKS, PRECISIONS

pytestmark = MARKS
of_cuda_alone = pytest.mark.skipif(DEVICE == "cpu", reason="of CUDA alone")

TRAINING = {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}


def steps_of(events: list[Event]) -> list[StepCompleted]:
    return [event for event in events if isinstance(event, StepCompleted)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
def test_every_precision_starts_with_policy_equal_to_reference_and_trains(
    precision: str, adapter: dict[str, object], model: Path, pairs: Path, tmp_path: Path
) -> None:
    training = {**TRAINING, "precision": precision}
    spec = tiny_spec(model, pairs, training=training, adapter=adapter, resources={"device": DEVICE})
    events = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    assert isinstance(events[0], RunStarted)
    assert events[0].device == DEVICE
    steps = steps_of(events)
    assert steps[0].metrics["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert any(step.metrics["margin"] != 0.0 for step in steps)


@of_cuda_alone
def test_left_out_precision_is_the_more_exact_half_one_and_is_kept_on_resume(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(model, pairs, training=TRAINING, resources={"device": DEVICE}, evaluation={})
    begun = list(stopped_after(2, align(spec, tmp_path / "work", cache_dir=tmp_path / "cache")))
    assert isinstance(begun[0], RunStarted)
    assert begun[0].precision == "auto"
    (chosen,) = [event for event in begun if isinstance(event, PrecisionChosen)]
    assert chosen.precision == "fp16"
    (measured,) = [event for event in begun if isinstance(event, PrecisionMeasured)]
    assert measured.precision == "fp16"
    resumed = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    assert isinstance(resumed[0], RunStarted)
    assert resumed[0].precision == "fp16"
    assert not [event for event in resumed if isinstance(event, PrecisionChosen | PrecisionMeasured)]


def stopped_after(step: int, run: Generator[Event, None, None]) -> Iterator[Event]:
    """The events of a run that is left after a step."""
    for event in run:
        yield event
        if isinstance(event, StepCompleted) and event.step == step:
            run.close()
            return


PLUG_INS = [
    ({"type": "lora", "rank": 2}, {"type": "hard_copy", "every": 2, "reg_mode": "through_ema"}),
    ({"type": "lora", "rank": 2}, {"type": "ema", "alpha": 0.1, "reg_mode": "policy_to_init"}),
    ({"type": "lora", "rank": 2}, {"type": "drift_controlled", "every": 2}),
    ({"type": "full"}, {"type": "hard_copy", "every": 2, "offload_initial": True}),
    ({"type": "full"}, {"type": "ema", "alpha": 0.1, "reg_mode": "through_ema"}),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("adapter", "reference"), PLUG_INS)
def test_both_plug_ins_train_and_a_copy_is_exact(
    precision: str, adapter: dict[str, object], reference: dict[str, object], model: Path, pairs: Path, tmp_path: Path
) -> None:
    timesteps = {
        "type": "timestep_aware",
        "num_bins": 2,
        "sampler": {"type": "discounted"},
        "reward_scale": {"type": "minmax_inv_sqrt_snr"},
        "loss_weight": {"type": "variance", "min_samples": 2},
    }
    spec = tiny_spec(
        model,
        pairs,
        training={**TRAINING, "precision": precision},
        adapter=adapter,
        reference=reference,
        timesteps=timesteps,
        resources={"device": DEVICE},
    )
    steps = steps_of(list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache")))
    assert len(steps) == 6
    if reference["type"] == "hard_copy":
        assert steps[2].metrics["margin"] == 0.0


@of_cuda_alone
def test_a_gpu_draws_the_numbers_of_a_cpu(model: Path, pairs: Path, tmp_path: Path) -> None:
    losses = [
        [step.metrics["loss"] for step in steps_of(list(align(spec, tmp_path / device, cache_dir=tmp_path / "cache")))]
        for device in ("cpu", "cuda")
        for spec in [tiny_spec(model, pairs, training={**TRAINING, "precision": "fp32"}, resources={"device": device})]
    ]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


@of_cuda_alone
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
def test_recorded_kernels_give_the_numbers_of_launching_each(
    precision: str, adapter: dict[str, object], model: Path, pairs: Path, tmp_path: Path
) -> None:
    found = {}
    for graphs in ("auto", "off"):
        training = {**TRAINING, "precision": precision, "cuda_graphs": graphs}
        spec = tiny_spec(model, pairs, training=training, adapter=adapter, resources={"device": DEVICE})
        events = list(align(spec, tmp_path / graphs, cache_dir=tmp_path / "cache"))
        assert not [event for event in events if isinstance(event, WarningRaised) and "graphs" in event.code]
        found[graphs] = [(step.metrics["loss"], step.metrics["grad_norm"]) for step in steps_of(events)]
    assert found["auto"] == pytest.approx(found["off"], rel=1e-5)


@of_cuda_alone
def test_a_lora_layer_of_ours_is_peft_s_rounded_once() -> None:
    def layer() -> nn.Module:
        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=2, target_modules=["0"], init_lora_weights=False)
        return inject_adapter_in_model(config, nn.Sequential(nn.Linear(64, 32)), adapter_name="default").cuda()

    peft, own, x = layer(), layer(), torch.randn(2, 7, 64, device="cuda")
    assert switched(own, "default") is not None
    assert torch.allclose(own(x), peft(x), atol=1e-4, rtol=1e-4)
    with torch.autocast("cuda", torch.float16):
        assert torch.allclose(own(x).float(), peft(x).float(), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "adafactor"])
def test_every_optimizer_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    optimizer: str, precision: str, model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full fine-tune, whose checkpoints are written beside the steps."""
    monkeypatch.setattr(saving, "BACKGROUND_BYTES", 0)
    training = {**TRAINING, "optimizer": optimizer, "precision": precision}
    spec = tiny_spec(
        model, pairs, training=training, adapter={"type": "full"}, evaluation={}, resources={"device": DEVICE}
    )
    list(align(spec, tmp_path / "whole", cache_dir=tmp_path / "cache"))
    list(stopped_after(3, align(spec, tmp_path / "stopped", cache_dir=tmp_path / "cache")))
    list(align(spec, tmp_path / "stopped", cache_dir=tmp_path / "cache"))
    whole, stopped = (folder_of(tmp_path / name / "checkpoints", 6) for name in ("whole", "stopped"))
    verify(stopped)
    assert same_weights(whole, stopped)


@of_cuda_alone
def test_a_card_begins_with_the_whole_step_and_tells_its_pace(model: Path, pairs: Path, tmp_path: Path) -> None:
    training = {**TRAINING, "micro_batch": "auto"}
    spec = tiny_spec(model, pairs, training=training, evaluation={}, resources={"device": DEVICE})
    events = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    (chosen,) = [event for event in events if isinstance(event, MicroBatchChosen)]
    assert (chosen.batch_size, chosen.gradient_accumulation_steps) == (4, 1)
    pace = [event.throughput for event in events if isinstance(event, ThroughputMeasured)][-1]
    assert pace.tflops_per_second is not None
    assert pace.peak_device_gib is not None
    assert pace.tflops_per_second > 0
    assert pace.peak_device_gib > 0


@of_cuda_alone
def test_a_step_that_does_not_fit_the_card_is_halved(model: Path, pairs: Path, tmp_path: Path) -> None:
    training = {**TRAINING, "micro_batch": "auto"}
    spec = tiny_spec(model, pairs, training=training, evaluation={}, resources={"device": DEVICE})
    events: list[Event] = []
    with ExitStack() as stack:
        for event in align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"):
            events.append(event)
            if isinstance(event, PhaseChanged) and event.phase == "training":
                stack.enter_context(SmallDevice(most_images=4))
            if isinstance(event, StepCompleted) and event.step == 6:
                stack.close()
    (chosen,) = [event for event in events if isinstance(event, MicroBatchChosen)]
    assert chosen.batch_size == 2
