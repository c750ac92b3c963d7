"""Runs that train the text encoders too: every method learns through them, what is saved is what was trained, resume is exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.actors.actors import Actors
from alignment_core.errors import ModelError
from alignment_core.exports.export import export
from alignment_core.families.lora_file import read_lora
from alignment_core.families.lora_places import place
from alignment_core.families.merge import update_of
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.networks import load_networks
from alignment_core.prove.checkpoint_comparison import compare_checkpoints
from alignment_core.spec import JobSpec
from alignment_core.spec.families import FamilyName
from alignment_core.spec.places import Sources
from alignment_core.training.loop import RATE_SCALE
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_diffusers
from tests.alignment_core.families.test_every_family import inputs_of, of_diffusers
from tests.alignment_core.load.test_combinations import Folders, assert_it_trains, load, spec_of, steps_of
from tests.alignment_core.load.test_start import last_checkpoint, run
from tests.alignment_core.tiny import tiny_spec
from tests.alignment_core.tiny_flux import save_tiny_flux

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

torch.set_num_threads(1)

READING: dict[str, Any] = {"type": "lora", "rank": 2, "alpha": 3.0, "text_encoder": {"rank": 3}}
TRAINING: dict[str, Any] = {"steps": 4, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
EVALUATION = {"prompts": ["a red circle"], "rewards": [{"type": "brightness"}], "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folders(tiny_sdxl: Path, tiny_pairs: Path, cache_dir: Path) -> Folders:
    return Folders(tiny_sdxl, tiny_pairs, cache_dir)


def reading(spec: JobSpec, family: FamilyName, **changes: Any) -> JobSpec:
    return JobSpec.model_validate({**spec.model_dump(), "adapter": READING, **changes}).resolved(family)


def networks_of(spec: JobSpec) -> Actors:
    return load_networks(spec, Sources(), new_accelerator(spec), Path("/nonexistent"))[1]


# One method by default; the rest is slow.
SOME = [("diffusion_dpo", "averaged", "paper")]
OTHERS = [
    ("ddpo", "frozen", "table"),
    ("d3po", "controlled", "adaptive"),
    ("diffusion_dpo", "seed", "seed"),
    ("diffusion_kto", "copied", "table"),
    ("mapo", "frozen", "uniform"),
    ("tailorpo", "averaged", "adaptive"),
    ("tailorpo_g", "frozen", "uniform"),
    ("dpok", "copied", "paper"),
]


@pytest.mark.parametrize(
    ("method", "reference", "timesteps"), [*SOME, *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHERS)]
)
def test_every_method_trains_the_encoders(method: str, reference: str, timesteps: str, folders: Folders) -> None:
    run = load(reading(spec_of(folders, method, reference, timesteps), "sdxl"), folders)
    before = {name: one.detach().clone() for name, one in run.actors.trainable_parts()[1].items() if ".lora_B." in name}
    assert_it_trains(run, method)
    assert before
    assert all(not torch.equal(run.actors.trainable()[name], one) for name, one in before.items())


@pytest.mark.slow
def test_a_value_network_is_shown_what_the_initial_model_reads(folders: Folders) -> None:
    spec = spec_of(folders, "dpok", "frozen", "uniform")
    method = {**spec.method.model_dump(), "baseline": "value"}
    assert_it_trains(load(reading(spec, "sdxl", method=method), folders), "dpok")


def test_the_encoders_alone_learn_what_is_preferred(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> None:
    """With a learning rate of their own, and hardly any for the denoiser."""
    adapter = {**READING, "text_encoder": {"learning_rate": 3e-3}}
    training = {"steps": 4, "batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 1e-9}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter, training=training, evaluation={"prompts": ["a"]})
    run = load(spec.resolved("sd"), Folders(tiny_model, tiny_pairs, cache_dir))
    batch = next(run.method.batches(run.actors, run.timesteps, 0))
    before = run.method.loss(run.actors, batch).per_example.mean().detach()
    for _ in steps_of(run):
        pass
    after = run.method.loss(run.actors, batch).per_example.mean().detach()
    assert float(before) == pytest.approx(0.6931, abs=1e-4)
    assert after < before - 1e-3
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([1e-9, 3e-3])
    assert run.optimizer.param_groups[1][RATE_SCALE] == pytest.approx(3e6)


# --- whole runs --------------------------------------------------------------------------------------------------------


def spec_of_run(model: Path, pairs: Path, **changes: Any) -> JobSpec:
    adapter = {**READING, "text_encoder": {"rank": 3, "alpha": 4.5, "learning_rate": 2e-2}}
    given = {"adapter": adapter, "training": TRAINING, "evaluation": EVALUATION, **changes}
    return tiny_spec(model, pairs, **given)


@pytest.fixture(scope="module", params=["sd", pytest.param("sdxl", marks=pytest.mark.slow)])
def trained(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    tiny_sdxl: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, JobSpec, Path]:
    model = tiny_model if request.param == "sd" else tiny_sdxl
    spec, workdir = spec_of_run(model, tiny_pairs), tmp_path_factory.mktemp(request.param)
    run(spec, workdir, cache_dir)
    return model, spec, workdir


def test_a_run_that_is_interrupted_ends_the_same(
    trained: tuple[Path, JobSpec, Path], tmp_path: Path, cache_dir: Path
) -> None:
    _, spec, workdir = trained
    run(spec, tmp_path, cache_dir, stop_after=2)
    run(spec, tmp_path, cache_dir)
    manifests = [checkpoints.read_manifest(last_checkpoint(one)) for one in (workdir, tmp_path)]
    kept = [[file for file in one.files if not file.path.endswith("history.json")] for one in manifests]
    assert kept[0] == kept[1]


def images_of(pipeline: Any) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(pipeline("a red circle", generator=generator, height=16, width=16, **options).images)


def updates_of(file: Path, model: Path) -> dict[str, Tensor]:
    """B A alpha / rank of each layer of a file, by the model's own names."""
    from alignment_core.families.sd_keys import SD
    from alignment_core.families.sdxl_keys import SDXL

    pipeline = of_diffusers(model)
    names = [name for name in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipeline, name)]
    components = {name: getattr(pipeline, name) for name in names}
    placed = place(read_lora(file), components, SDXL if "text_encoder_2" in components else SD)
    return {f"{name}.{module}": update_of(one) for name, own in placed.items() for module, one in own.items()}


def test_every_form_of_the_checkpoint_has_the_encoders(trained: tuple[Path, JobSpec, Path], tmp_path: Path) -> None:
    model, _, workdir = trained
    folder = last_checkpoint(workdir)
    theirs, bare = of_diffusers(model), of_diffusers(model)
    theirs.load_lora_weights(str(folder), weight_name="pytorch_lora_weights.safetensors")
    ours = images_of(theirs)
    assert not torch.allclose(ours, images_of(bare), atol=1e-4)
    updates = updates_of(folder / "pytorch_lora_weights.safetensors", model)
    assert any(one.any() for name, one in updates.items() if name.startswith("text_encoder."))
    list(export(folder, tmp_path / "kohya", "kohya"))
    for kohya in (folder / "pytorch_lora_weights_kohya.safetensors", tmp_path / "kohya" / "lora.safetensors"):
        other = updates_of(kohya, model)
        assert other.keys() == updates.keys()
        assert all(torch.allclose(other[name], one, atol=1e-6) for name, one in updates.items())
    list(export(folder, tmp_path / "merged", "merged"))
    assert torch.allclose(images_of(of_diffusers(tmp_path / "merged")), ours, atol=1e-5)
    assert str(model).encode() not in (folder / "pytorch_lora_weights.safetensors").read_bytes()


@pytest.mark.slow
def test_it_compares_with_a_run_that_left_the_encoders_alone(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, cache_dir: Path
) -> None:
    adapter = {"type": "lora", "rank": 2}
    run(spec_of_run(tiny_model, tiny_pairs), tmp_path / "reading", cache_dir)
    run(spec_of_run(tiny_model, tiny_pairs, adapter=adapter), tmp_path / "plain", cache_dir)
    for one, other in (("reading", "plain"), ("plain", "reading")):
        events = list(
            compare_checkpoints(tmp_path / one, base=str(tmp_path / other), sources=Sources(), cache_dir=cache_dir)
        )
        report = events[-1].report  # pyright: ignore[reportAttributeAccessIssue]
        assert report["drift"]["eps_dist"] > 0
        assert report["drift"]["relative_weight_change"] > 0


# --- where it starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", ["lora", pytest.param("base", marks=pytest.mark.slow)])
def test_a_lora_of_both_is_trained_further(initial: str, tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of(tiny_model)
    layers = {
        "unet": random_layers(pipeline.unet, ("to_q", "to_k", "to_v", "to_out.0"), rank=2, alpha=3.0),
        "text_encoder": random_layers(
            pipeline.text_encoder, ("q_proj", "k_proj", "v_proj", "out_proj"), rank=3, alpha=3.0
        ),
    }
    lora = save_diffusers(layers, tmp_path / "both.safetensors")
    start = {"lora": {"type": "local", "path": str(lora)}}
    begun, merged = (
        networks_of(tiny_spec(tiny_model, tiny_pairs, adapter=READING, start={**start, **one}).resolved("sd"))
        for one in ({"mode": "train", "initial": initial}, {"mode": "merge"})
    )
    given = inputs_of(begun.family)  # pyright: ignore[reportArgumentType]
    policy = begun.predict_policy(*given)
    assert torch.allclose(policy, merged.predict_policy(*given), atol=1e-5)
    assert torch.equal(begun.predict_initial(*given), policy) == (initial == "lora")
    plain = {"type": "lora", "rank": 2, "alpha": 3.0}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=plain, start={**start, "mode": "train"}).resolved("sd")
    with pytest.raises(ModelError, match=r"text_encoder too.*use merge, or adapter.text_encoder"):
        networks_of(spec)


def test_what_has_no_encoders_to_train_is_refused_by_its_field(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match="text_encoder"):
        tiny_spec(tiny_model, tiny_pairs, adapter={"type": "full", "text_encoder": {}})
    spec = tiny_spec(save_tiny_flux(tmp_path), tiny_pairs, adapter={"type": "lora", "text_encoder": {}})
    with pytest.raises(ModelError, match=r"adapter.text_encoder: the text encoders of FLUX.1 are not trained here"):
        networks_of(spec.resolved("flux"))


def test_left_out_it_changes_no_hash(tiny_model: Path, tiny_pairs: Path) -> None:
    plain = tiny_spec(tiny_model, tiny_pairs)
    explicit = JobSpec.model_validate(
        {**plain.model_dump(), "adapter": {**plain.adapter.model_dump(), "text_encoder": None}}
    )
    asked = tiny_spec(tiny_model, tiny_pairs, adapter={"type": "lora", "rank": 2, "text_encoder": {}})
    assert plain.sha256() == explicit.sha256() != asked.sha256()
