"""A model in shares on two processes: the same steps, checkpoints that everybody reads, and a resume without a trace."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignment_core.checkpoints import STATE
from alignment_core.spec import JobSpec
from tests.alignment_core.collective.two import Done, farthest, in_one, in_two, in_twos
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.tiny import tiny_spec

ROUNDING = 2e-5  # of weights that Adam moved by about 6e-3
FULL = {"adapter": {"type": "full"}}
COPIED = {"type": "hard_copy", "every": 2, "guard": {"num_samples": 7, "delta": 10.0}}
AVERAGED = {"type": "ema", "alpha": 0.5}


def on(strategy: str, spec: JobSpec) -> JobSpec:
    spec = in_twos(spec)
    resources = spec.resources.model_copy(update={"strategy": strategy})
    return JobSpec.model_validate(spec.model_copy(update={"resources": resources}).model_dump())


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
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    specs = {name: on("fsdp2", spec) for name, spec in specs_of(tiny_model, tiny_pairs).items()}
    return in_two(specs, tmp_path_factory.mktemp("two"), cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shares_take_the_steps_of_one_process(
    name: str, two: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one = in_one(specs_of(tiny_model, tiny_pairs)[name], tmp_path, cache_dir)
    assert two[name].metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
    assert two[name].metric("grad_norm") == pytest.approx(one.metric("grad_norm"), rel=2e-3)
    assert farthest(two[name].checkpoint(6), one.checkpoint(6)) < ROUNDING
    states = [load_file(done.checkpoint(6) / STATE / "optimizer.safetensors") for done in (two[name], one)]
    assert [{key: value.shape for key, value in state.items()} for state in states][0] == {
        key: value.shape for key, value in states[1].items()
    }
