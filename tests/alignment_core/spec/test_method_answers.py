"""What a method's spec says of itself, and that nobody else has to know which method it is."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from alignment_core.spec import JobSpec, MethodSpec
from alignment_core.spec.method import MethodBase
from alignment_core.spec.online import D3POSpec, DPOKSpec

ROOT = Path(__file__).parents[3]
MEMBERS: list[type[MethodBase]] = list(get_args(get_args(MethodSpec)[0]))
PROMPTS, REWARD, DATA = ["a red circle"], {"type": "brightness"}, {"type": "local", "path": "/pairs"}
WRITTEN: dict[str, dict[str, Any]] = {
    **{name: {"dataset": DATA} for name in ("diffusion_dpo", "diffusion_kto", "mapo")},
    **{name: {"prompts": PROMPTS, "rewards": [REWARD]} for name in ("tailorpo", "d3po")},
    **{name: {"prompts": PROMPTS, "reward": REWARD} for name in ("ddpo", "dpok")},
}
ANSWERS = {
    "diffusion_dpo": ("pairs", "margin", True, False),
    "mapo": ("pairs", "margin", False, False),
    "diffusion_kto": ("images", "margin", True, False),
    "tailorpo": ("rewards", "margin", True, True),
    "d3po": ("rewards", "margin", True, True),
    "ddpo": ("rewards", "advantage", False, False),
    "dpok": ("rewards", "advantage", True, False),
}


def method_of(name: str, **options: Any) -> Any:
    spec = {"model": {"type": "local", "path": "/model"}, "method": {"type": name, **WRITTEN[name], **options}}
    return JobSpec.model_validate(spec).method


def test_every_method_answers_for_itself() -> None:
    found = {
        one.model_fields["type"].default: (one.learns_from, one.signal, one.has_reference, one.ranks) for one in MEMBERS
    }
    assert found == ANSWERS


@pytest.mark.parametrize("member", MEMBERS, ids=lambda one: one.__name__)
def test_every_method_has_a_learning_rate_for_every_adapter_with_its_source(member: type[MethodBase]) -> None:
    assert member.recipes.keys() == {"full", "lora"}
    assert all(0 < recipe.rate < recipe.high and recipe.source for recipe in member.recipes.values())


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_method_learns_from_data_or_climbs_rewards_and_never_both(name: str) -> None:
    method = method_of(name)
    assert (method.data is not None) == (method.learns_from != "rewards")
    assert bool(method.trained_rewards) == (method.learns_from == "rewards")


@pytest.mark.parametrize("member", MEMBERS, ids=lambda one: one.__name__)
def test_a_methods_spec_is_named_where_it_is_defined_and_where_it_is_built_and_nowhere_else(
    member: type[MethodBase],
) -> None:
    packages = ("alignment_core", "service", "worker", "attune")
    sources = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    naming = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if re.search(rf"\b{member.__name__}\b", path.read_text(encoding="utf-8"))
    }
    building = {"alignment_core/load/objective.py", "alignment_core/load/online.py"}
    defining = {f"alignment_core/spec/{name}.py" for name in ("pairs", "unpaired", "online", "__init__")}
    assert naming <= building | defining
    assert len(naming & building) == len(naming & defining - {"alignment_core/spec/__init__.py"}) == 1


@pytest.mark.parametrize(("examples", "fits"), [(4, True), (20, True), (3, False), (40, False)])
def test_an_iteration_that_trains_every_transition_once_divides_into_steps(examples: int, fits: bool) -> None:
    method = D3POSpec(**{**WRITTEN["d3po"], "prompts_per_iteration": 4, "num_trained_steps": 5})
    assert method.divides_into(examples) == fits
    if fits:
        assert method.steps_per_turn(examples) * examples == 20


@pytest.mark.parametrize(("examples", "fits"), [(3, True), (40, True), (41, False)])
def test_a_step_from_a_buffer_takes_no_more_than_one_iteration_fills(examples: int, fits: bool) -> None:
    method = DPOKSpec(**{**WRITTEN["dpok"], "prompts_per_iteration": 2, "num_inference_steps": 20})
    assert method.divides_into(examples) == fits
    assert method.steps_per_turn(examples) == method.updates_per_iteration
