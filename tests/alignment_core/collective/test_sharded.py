"""A model in shares on two processes: the same steps, checkpoints that everybody reads, and a resume without a trace."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import load_file

from alignment_core.checkpoints import STATE
from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair, new_pair
from tests.alignment_core.collective.two import (
    Circumstances,
    Done,
    farthest,
    in_one,
    in_two,
    in_twos,
    same_files,
    weights_of,
)
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.tiny import tiny_spec

ROUNDING = 2e-5  # of weights that Adam moved by about 6e-3
FULL = {"adapter": {"type": "full"}}
COPIED = {"type": "hard_copy", "every": 2, "guard": {"num_samples": 7, "delta": 10.0}}
AVERAGED = {"type": "ema", "alpha": 0.5}


def specs_of(model: Path, pairs: Path) -> dict[str, JobSpec]:
    """By name, in one process."""
    offline = {
        "lora": {},
        "full": FULL,
        "lora_copied": {"reference": COPIED},
        "full_copied": {**FULL, "reference": COPIED},
        "full_averaged": {**FULL, "reference": {**AVERAGED, "reg_mode": "policy_to_init"}},
        **{
            store: {"reference": {**AVERAGED, "ref_store": store}}
            for store in ("dense_delta", "lowrank_sum", "shared_A", "factor_average")
        },
    }
    return {
        **{name: tiny_spec(model, pairs, **changes) for name, changes in offline.items()},
        "tailorpo_g": online_spec(model, METHODS["tailorpo_g"]),
        "d3po_full": online_spec(model, METHODS["d3po"], **FULL),
    }


NAMES = [
    *("lora", "full", "lora_copied", "full_copied", "full_averaged"),
    *("dense_delta", "lowrank_sum", "shared_A", "factor_average", "tailorpo_g", "d3po_full"),
]


@pytest.fixture(scope="module")
def two(
    pair: Pair, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    specs = {name: in_twos(spec, strategy="fsdp2") for name, spec in specs_of(tiny_model, tiny_pairs).items()}
    return in_two(pair, specs, tmp_path_factory.mktemp("two"), cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shares_take_the_steps_of_one_process(
    name: str, two: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one = in_one(specs_of(tiny_model, tiny_pairs)[name], tmp_path, cache_dir)
    assert two[name].metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
    assert two[name].metric("grad_norm") == pytest.approx(one.metric("grad_norm"), rel=2e-3)
    assert farthest(two[name].checkpoint(6), one.checkpoint(6)) < ROUNDING
    mine, theirs = (
        {key: value.shape for key, value in load_file(done.checkpoint(6) / STATE / "optimizer.safetensors").items()}
        for done in (two[name], one)
    )
    assert mine == theirs


@pytest.mark.slow
def test_a_lora_that_was_trained_beside_shares_is_whole_and_loads_in_diffusers(
    two: dict[str, Done], tiny_model: Path
) -> None:
    folder = two["lora"].checkpoint(6)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors", adapter_name="mine")
    saved = {name.removeprefix("unet."): value for name, value in weights_of(folder).items()}
    loaded = get_peft_model_state_dict(pipeline.unet, adapter_name="mine")
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert all(value.abs().max() > 0 for value in saved.values()), "B began as zeros"


@pytest.mark.slow
def test_a_fine_tune_in_shares_is_saved_as_a_whole_pipeline(two: dict[str, Done]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(two["full"].checkpoint(6) / "pipeline", safety_checker=None)
    assert type(pipeline.unet).__name__ == pipeline.unet.config["_class_name"] == "UNet2DConditionModel"
    saved = weights_of(two["full"].checkpoint(6))
    assert all(torch.equal(value, saved[name]) for name, value in pipeline.unet.state_dict().items())


RESUMED = ["full_copied", "lowrank_sum", "full_averaged", "tailorpo_g"]


@pytest.fixture(scope="module")
def resumed(
    pair: Pair, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    """Stopped after the third step, by all processes together, and gone on with by two new ones."""
    folder, every = tmp_path_factory.mktemp("resumed"), specs_of(tiny_model, tiny_pairs)
    specs = {name: in_twos(every[name], strategy="fsdp2") for name in RESUMED}
    in_two(pair, specs, folder, cache_dir, dict.fromkeys(specs, Circumstances(stop_after=3)))
    with new_pair(folder) as others:
        return in_two(others, specs, folder, cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_as_many_processes_go_on_bit_for_bit(name: str, two: dict[str, Done], resumed: dict[str, Done]) -> None:
    assert resumed[name].events[0]["resumed_from_step"] == 3
    assert [event["step"] for event in resumed[name].of_type("step_completed")] == [4, 5, 6]
    assert same_files(two[name].checkpoint(6), resumed[name].checkpoint(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full_averaged", "tailorpo_g"])
def test_another_number_of_processes_goes_on_with_the_exact_state(
    name: str, two: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = specs_of(tiny_model, tiny_pairs)[name]
    one = in_one(spec, tmp_path, cache_dir, resume_from=two[name].checkpoint(4))
    assert [event["step"] for event in one.of_type("step_completed")] == [5, 6]
    assert farthest(one.checkpoint(6), two[name].checkpoint(6)) < ROUNDING


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resources": {"strategy": "fsdp2"}}, "set resources.processes to 2"),
        ({"reference": {**AVERAGED, "reg_mode": "through_ema"}}, "reg_mode through_ema needs a gradient"),
        ({**FULL, "reference": {**COPIED, "offload_initial": True}}, "each process has a share of it"),
    ],
)
def test_what_shares_cannot_do_is_refused(changes: dict[str, Any], told: str) -> None:
    shares = {"resources": {"processes": 2, "strategy": "fsdp2"}}
    with pytest.raises(ValidationError, match=told):
        tiny_spec(Path("model"), Path("pairs"), **{**shares, **changes})
