"""What each process holds, not what the first one says: where others' replicas went apart, or held everything as often as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.states import stop_and_go_on
from tests.alignment_core.collective.two import in_twos
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

pytestmark = pytest.mark.slow

ROUNDING = 2e-5  # of weights that Adam moved by about 4e-3
TRAINING = {"steps": 4, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
ADAPTIVE: dict[str, Any] = {
    "reference": {"type": "drift_controlled", "every": 1, "delta": 1e-4, "num_samples": 5},
    "timesteps": {
        "type": "timestep_aware",
        "num_bins": 4,
        "sampler": {"type": "discounted"},
        "loss_weight": {"type": "variance", "min_samples": 2},
    },
}
FULL = {"adapter": {"type": "full"}}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "lora": (ADAPTIVE, "ddp"),
    "full": ({**ADAPTIVE, **FULL}, "ddp"),
    "lora_in_shares": (ADAPTIVE, "fsdp2"),
    "full_in_shares": ({**ADAPTIVE, **FULL}, "fsdp2"),
}

Held = dict[str, Tensor]


def spec_of(name: str, model: Path, pairs: Path) -> JobSpec:
    return tiny_spec(model, pairs, **{"training": TRAINING, "evaluation": UNJUDGED, **CASES[name][0]})


@pytest.fixture(scope="module")
def folder(pair: Pair, tiny_model: Path, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each run stopped, loaded anew and gone on with by two processes."""
    folder = tmp_path_factory.mktemp("states")
    specs = {name: in_twos(spec_of(name, tiny_model, tiny_pairs), strategy=one[1]) for name, one in CASES.items()}
    dumped = {name: spec.model_dump(mode="json") for name, spec in specs.items()}
    pair.ask("states", {"specs": dumped, "folder": str(folder)})
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path, tiny_model: Path, tiny_pairs: Path) -> dict[str, tuple[Held, Held]]:
    """What one process holds after the same."""
    found = {}
    for name in ("lora", "full"):
        workdir = folder / f"{name}-alone"
        stop_and_go_on(spec_of(name, tiny_model, tiny_pairs), workdir, folder / "cache", 0)
        found[name] = load_file(workdir / "resumed-0.safetensors"), load_file(workdir / "after-0.safetensors")
    return found


def of_rank(folder: Path, name: str, when: str, rank: int) -> Held:
    return load_file(folder / name / f"{when}-{rank}.safetensors")


def parts_of(held: Held, *parts: str) -> Held:
    return {name: value for name, value in held.items() if name.startswith(parts)}


def distance(one: Held, other: Held) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def share_off(one: Held, other: Held) -> float:
    """Of all numbers: a bias before a group norm has no gradient but rounding, and Adam makes steps of that."""
    assert one.keys() == other.keys()
    off = torch.cat([((one[name] - other[name]).abs() > ROUNDING).flatten() for name in one])
    return float(off.double().mean())


@pytest.mark.parametrize("name", CASES)
def test_every_replica_resumes_into_the_weights_that_were_saved_and_stays_with_the_others(
    name: str, folder: Path, alone: dict[str, tuple[Held, Held]]
) -> None:
    for when, by_one in zip(("resumed", "after"), alone[name.removesuffix("_in_shares")], strict=True):
        first, second = (parts_of(of_rank(folder, name, when, rank), "policy/") for rank in (0, 1))
        assert distance(first, second) == 0
        assert share_off(second, parts_of(by_one, "policy/")) < 0.01


@pytest.mark.parametrize("name", CASES)
def test_what_adapts_while_it_trains_is_the_same_in_every_process(
    name: str, folder: Path, alone: dict[str, tuple[Held, Held]]
) -> None:
    """The statistics of the timestep weights, and the reference: its rule, its drift and its weights."""
    for when, by_one in zip(("resumed", "after"), alone[name.removesuffix("_in_shares")], strict=True):
        first, second = (
            parts_of(of_rank(folder, name, when, rank), "timesteps/", "reference/", "reference_weights/")
            for rank in (0, 1)
        )
        assert distance(first, second) == 0
        assert {key.partition("/")[0] for key in first} == {"timesteps", "reference", "reference_weights"}
        assert first["reference/num_updates"] > 0
        assert share_off(*(parts_of(held, "reference_weights/") for held in (first, by_one))) < 0.01
        for key, value in parts_of(by_one, "timesteps/", "reference/").items():
            assert torch.allclose(first[key].double(), value.double(), rtol=2e-2, atol=ROUNDING), key


@pytest.mark.parametrize("name", CASES)
def test_the_state_of_the_optimizer_is_loaded_once_and_each_process_has_its_share(
    name: str, folder: Path, alone: dict[str, tuple[Held, Held]]
) -> None:
    for when, steps, by_one in zip(("resumed", "after"), (2, 4), alone[name.removesuffix("_in_shares")], strict=True):
        held = [of_rank(folder, name, when, rank) for rank in (0, 1)]
        assert all(one["optimizer/steps"].tolist() == [steps] for one in held)
        here, whole = [int(one["optimizer/here"]) for one in held], int(by_one["optimizer/here"])
        if name == "full_in_shares":
            assert sum(here) == whole + len(parts_of(by_one, "policy/"))  # each process counts the steps of each itself
            assert max(here) < 0.6 * whole
        else:
            assert here == [whole, whole]
