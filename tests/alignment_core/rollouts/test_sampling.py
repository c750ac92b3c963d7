"""The images of a run's report are those that plain diffusers draws from the same weights and the same noise."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy import ndarray
from PIL import Image

from alignment_core import align
from alignment_core.checkpoints import folder_of
from alignment_core.evaluation.compare import seeds_of
from tests.alignment_core.tiny import tiny_spec

PROMPTS = ["a red circle", "a blue square"]
STEPS, GUIDANCE = 3, 4.0
SEED, SEEDS_PER_PROMPT = 7, 2
LORA = {"type": "lora", "rank": 2, "alpha": 6.0}  # a loader that ignores alpha would scale the update wrongly
FULL = {"type": "full"}


@pytest.fixture(scope="module", params=[LORA, FULL], ids=["lora", "full"])
def finished(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """The kind and the work folder of a run whose policy is far from where it started."""
    workdir = tmp_path_factory.mktemp("sampled")
    evaluation = {
        "prompts": PROMPTS,
        "rewards": [{"type": "brightness"}],
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "seeds_per_prompt": SEEDS_PER_PROMPT,
        "batch_size": 3,  # the four images of a model do not fit into one batch
        "bootstrap_resamples": 100,
    }
    training = {"steps": 3, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 0.03}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=request.param, evaluation=evaluation, training=training, seed=SEED)
    list(align(spec, workdir, cache_dir=cache_dir))
    return request.param["type"], workdir


def saved(workdir: Path, model: str) -> dict[tuple[int, int], ndarray]:
    """The run's images of a model by (prompt, seed), as 8-bit levels."""
    paths = (workdir / "evaluation" / "step-00000003" / "images").glob(f"{model}-*.png")
    places = {path: path.stem.split("-") for path in paths}
    return {(int(p), int(seed)): np.asarray(Image.open(path)).astype(int) for path, (_, p, seed) in places.items()}


def plain(
    pipeline: StableDiffusionPipeline, *, steps: int = STEPS, guidance: float = GUIDANCE
) -> dict[tuple[int, int], ndarray]:
    """What the pipeline draws one by one, from the noise that each seed gives."""
    pipeline.set_progress_bar_config(disable=True)
    images = {}
    for prompt, seeds in enumerate(seeds_of(SEED, len(PROMPTS), SEEDS_PER_PROMPT)):
        for seed in seeds:
            noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(seed))
            (drawn, _) = pipeline(
                PROMPTS[prompt],
                latents=noise[None],
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
                return_dict=False,
            )
            images[prompt, seed] = (255 * np.asarray(drawn[0])).round().astype(int)
    return images


def distance(one: Mapping[tuple[int, int], ndarray], other: Mapping[tuple[int, int], ndarray]) -> int:
    """The largest difference of two models' images, in 8-bit levels."""
    assert one.keys() == other.keys()
    return max(int(abs(one[place] - other[place]).max()) for place in one)


def base_pipeline(model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(model, use_safetensors=True, local_files_only=True)


def test_the_base_images_are_those_of_the_model_as_it_was(finished: tuple[str, Path], tiny_model: Path) -> None:
    base = saved(finished[1], "base")
    assert len(base) == 4
    assert distance(base, plain(base_pipeline(tiny_model))) <= 1
    # the comparison would notice other settings
    assert distance(base, plain(base_pipeline(tiny_model), steps=STEPS + 1)) > 4
    assert distance(base, plain(base_pipeline(tiny_model), guidance=1.0)) > 4


def test_the_aligned_images_are_those_that_plain_diffusers_draws_from_the_checkpoint(
    finished: tuple[str, Path], tiny_model: Path
) -> None:
    kind, workdir = finished
    checkpoint = folder_of(workdir / "checkpoints", 3)
    if kind == "full":
        pipeline = base_pipeline(checkpoint / "pipeline")
    else:
        pipeline = base_pipeline(tiny_model)
        pipeline.load_lora_weights(str(checkpoint))
    policy = saved(workdir, "policy")
    assert len(policy) == 4
    assert distance(policy, plain(pipeline)) <= 1
    assert distance(policy, saved(workdir, "base")) > 4
