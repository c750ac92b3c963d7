"""What is tried before a run: it says what it found, leaves nothing behind, and fails where the run would have failed later."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment_core import AlignmentError, JobSpec, align
from alignment_core.checkpoints import latest
from alignment_core.events import Event, PhaseChanged, RunCompleted, StartChecked, StepCompleted
from alignment_core.methods.diffusion_dpo import DiffusionDPO
from alignment_core.rewards.brightness import Brightness
from alignment_core.spec.first_step import first_step_of
from alignment_core.spec.places import Sources
from tests.alignment_core.datasets.builders import image_bytes, rows, write_parquet
from tests.alignment_core.tiny import EVALUATION, UNJUDGED, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
ONLINE = {"prompts": ["a red circle", "a blue square"], "num_inference_steps": 4, "guidance_scale": 2.0}
REWARD = {"type": "brightness"}
RUNS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"adapter": {"type": "full"}},
    "moving_reference": {"reference": {"type": "ema"}},
    "timestep_aware": {"timesteps": {"type": "timestep_aware"}},
    "kto": {"method": {"type": "diffusion_kto"}},
    "ddpo": {"method": {**ONLINE, "type": "ddpo", "reward": REWARD, "prompts_per_iteration": 2}},
    "dpok": {"method": {**ONLINE, "type": "dpok", "reward": REWARD, "prompts_per_iteration": 2, "baseline": "value"}},
    "d3po": {"method": {**ONLINE, "type": "d3po", "rewards": [REWARD], "prompts_per_iteration": 2}},
    "tailorpo": {"method": {**ONLINE, "type": "tailorpo", "rewards": [REWARD], "num_trained_steps": 2}},
}


def spec_of(name: str, model: Path, pairs: Path, *, checks: bool = True, **changes: Any) -> JobSpec:
    parts = dict(RUNS[name])
    if name == "kto":
        parts["method"] = {**parts["method"], "dataset": {"type": "local", "path": str(pairs)}}
    batch = {"batch_size": 8, "gradient_accumulation_steps": 1} if name == "kto" else {}
    training = {**TRAINING, **batch, "start_checks": checks}
    return tiny_spec(model, pairs, **{"evaluation": UNJUDGED, **parts, **changes, "training": training})


def tensors_of(workdir: Path) -> dict[str, torch.Tensor]:
    folder = latest(workdir / "checkpoints")
    assert folder is not None
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}/{name}": value for file in files for name, value in load_file(file).items()}


def phases_of(events: list[Event]) -> list[str]:
    return [event.phase for event in events if isinstance(event, PhaseChanged)]


@pytest.mark.parametrize(
    "name", [name if name in ("lora", "ddpo") else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_a_run_has_the_bits_that_it_has_without_checks(
    name: str, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    for checks in (False, True):
        spec = spec_of(name, tiny_model, tiny_pairs, checks=checks)
        events = list(align(spec, tmp_path / str(checks), cache_dir=tmp_path / f"cache-{checks}"))
        assert ("checking" in phases_of(events)) is checks
    without, checked = (tensors_of(tmp_path / str(checks)) for checks in (False, True))
    assert without.keys() == checked.keys()
    assert all(torch.equal(without[name], checked[name]) for name in without)


def test_the_checks_say_what_they_tried_and_leave_nothing(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    spec = spec_of("lora", tiny_model, tiny_pairs, evaluation=EVALUATION)
    events = list(align(spec, tmp_path / "run", cache_dir=tmp_path / "cache", check_only=True))
    (checked,) = [event for event in events if isinstance(event, StartChecked)]
    assert [one.check for one in checked.checks] == ["load", "step", "checkpoint", "picture", "reward"]
    assert sum(one.seconds for one in checked.checks) <= checked.seconds
    assert checked.checkpoint_bytes > 1000
    assert isinstance(events[-1], RunCompleted)
    assert not any(isinstance(event, StepCompleted) for event in events)
    assert list((tmp_path / "run").iterdir()) == []
    assert list((tmp_path / "cache").rglob("*.safetensors")) == [], "what was encoded of a batch is in nobody's cache"


@pytest.mark.parametrize("kind", ["judged", "pairs"])
def test_images_that_the_disk_has_no_room_for_are_found_by_the_trial_too(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    judged = [{"prompt": f"prompt {i % 3}", "image": image_bytes(i), "label": i % 2} for i in range(12)]
    data = write_parquet(tmp_path / "images.parquet", judged if kind == "judged" else rows(12))
    transform = {"crop": "random", "horizontal_flip": True}
    method = {"type": "diffusion_kto", "dataset": {"type": "local", "path": str(data)}, "transform": transform}
    spec = spec_of("kto", tiny_model, data, method=method)
    running = align(
        spec, tmp_path / "run", sources=Sources(unpacked_disk_bytes=1), cache_dir=tmp_path / "cache", check_only=True
    )
    assert any(isinstance(event, StartChecked) for event in running)


def test_a_run_that_has_saved_is_not_checked_again(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    spec = spec_of("lora", tiny_model, tiny_pairs)
    first, again = (phases_of(list(align(spec, tmp_path / "run", cache_dir=tmp_path / "cache"))) for _ in range(2))
    assert first[:2] == ["checking", "loading"]
    assert "checking" not in again


def test_a_step_that_does_not_fit_fails_before_the_data_is_encoded(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DiffusionDPO, "loss", no_room)
    seen: list[Event] = []
    with pytest.raises(torch.OutOfMemoryError):
        seen.extend(align(spec_of("lora", tiny_model, tiny_pairs), tmp_path, cache_dir=tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    assert not (tmp_path / "checking").exists()


def test_a_broken_reward_fails_before_training(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("weights of another size")

    monkeypatch.setattr(Brightness, "__call__", broken)
    spec = spec_of("lora", tiny_model, tiny_pairs, evaluation=EVALUATION)
    with pytest.raises(AlignmentError, match="'brightness' cannot judge pictures: RuntimeError") as found:
        list(align(spec, tmp_path, cache_dir=tmp_path / "cache"))
    assert found.value.code == "reward_broken"


def test_the_step_that_is_tried_is_one_pass_as_large_as_those_of_the_run(tiny_model: Path, tiny_pairs: Path) -> None:
    spec = spec_of("lora", tiny_model, tiny_pairs).resolved()
    short = first_step_of(spec)
    assert (short.batch_size, short.accumulation) == (spec.batch_size, 1)
    many = {**RUNS["ddpo"]["method"], "prompts_per_iteration": 16}
    online = first_step_of(spec_of("ddpo", tiny_model, tiny_pairs, method=many).resolved())
    assert online.method.model_dump()["prompts_per_iteration"] == 2
    assert online.batch_size == 2


def test_checks_are_no_part_of_what_a_run_is(tiny_model: Path, tiny_pairs: Path) -> None:
    with_checks, without = (spec_of("lora", tiny_model, tiny_pairs, checks=checks) for checks in (True, False))
    assert with_checks.sha256() == without.sha256()
