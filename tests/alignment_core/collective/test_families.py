"""Every family, as a LoRA and as a fine-tune, whole on each of two processes and in shares: the steps of one process."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core.spec import JobSpec, LocalSource
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.two import Done, farthest, in_one, in_two, in_twos, weights_of
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_diffusers
from tests.alignment_core.families.test_every_family import of_diffusers
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

pytestmark = pytest.mark.slow

ROUNDING = 2e-5  # of weights that Adam moved by about 1e-3
TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 5e-4}
LORA, FULL = {"type": "lora", "rank": 2}, {"type": "full"}
READING = {**LORA, "text_encoder": {"rank": 3}}
FAMILIES = ("sd_2", "sdxl", "sd3", "flux")  # sd is in all other files
STRATEGIES = ("ddp", "fsdp2")
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{family}-{adapter['type']}": (family, {"adapter": adapter}) for family in FAMILIES for adapter in (LORA, FULL)
    },
    "sd-reading": ("sd", {"adapter": READING}),
    "sdxl-reading": ("sdxl", {"adapter": READING}),
    "sd-merged": ("sd", {"adapter": FULL}),  # a LoRA of others in the weights that it starts from
}

PROVED = {"flux-full", "sdxl-lora"}  # which draw too


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory, tiny_pairs: Path) -> dict[str, JobSpec]:
    models = {family: TINY[family](tmp_path_factory.mktemp(family)) for family in ("sd", *FAMILIES)}
    specs = {}
    for name, (family, changes) in ALONE.items():
        given = {
            "training": TRAINING,
            "evaluation": UNJUDGED if name in PROVED else {},
            "checkpoints": {"every": 2},
            **changes,
        }
        if name == "sd-merged":
            unet = random_layers(pipeline_of(models["sd"]).unet, ("to_q", "to_v"), rank=2)
            lora = save_diffusers({"unet": unet}, tmp_path_factory.mktemp("lora") / "lora.safetensors")
            given["start"] = {"lora": {"type": "local", "path": str(lora)}, "mode": "merge"}
        specs[name] = tiny_spec(models[family], tiny_pairs, **given)
    return specs


@pytest.fixture(scope="module")
def two(
    pair: Pair, specs: dict[str, JobSpec], cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    shared_out = {
        f"{name}-{strategy}": in_twos(spec, strategy=strategy)
        for name, spec in specs.items()
        for strategy in STRATEGIES
    }
    return in_two(pair, shared_out, tmp_path_factory.mktemp("two"), cache_dir)


@pytest.mark.parametrize("name", ALONE)
def test_two_processes_are_one(
    name: str, two: dict[str, Done], specs: dict[str, JobSpec], cache_dir: Path, tmp_path: Path
) -> None:
    one = in_one(specs[name], tmp_path, cache_dir)
    for strategy in STRATEGIES:
        done = two[f"{name}-{strategy}"]
        assert done.metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
        assert farthest(done.checkpoint(2), one.checkpoint(2)) < ROUNDING
        trained = [key for key in weights_of(done.checkpoint(2)) if "lora_B" in key or "lora" not in key]
        assert any(weights_of(done.checkpoint(2))[key].abs().max() > 0 for key in trained)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_diffusers_loads_what_was_saved_in_shares(family: str, two: dict[str, Done], specs: dict[str, JobSpec]) -> None:
    pipeline = of_diffusers(two[f"{family}-full-fsdp2"].checkpoint(2) / "pipeline")
    denoiser = pipeline.unet if family == "sdxl" else pipeline.transformer
    assert "FSDP" not in type(denoiser).__name__
    model = specs[f"{family}-lora"].model
    assert isinstance(model, LocalSource)
    pipeline = of_diffusers(Path(model.path))
    folder = two[f"{family}-lora-fsdp2"].checkpoint(2)
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    assert pipeline.get_active_adapters()
