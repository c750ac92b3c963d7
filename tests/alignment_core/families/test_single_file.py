"""A model in one file is the same model as its folder, and what is no such file is told what it is."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from alignment_core import checkpoints
from alignment_core.alignment import align
from alignment_core.errors import ModelError
from alignment_core.exports.export import export
from alignment_core.families.clip_tokenizer import NUM_TOKENS, write_clip_tokenizer
from alignment_core.families.keys import FamilyKeys
from alignment_core.families.sd_keys import SD
from alignment_core.families.sdxl_keys import SDXL
from alignment_core.families.single_file import unpacked
from alignment_core.families.single_file_configs import CONFIGS
from alignment_core.families.source import read_json
from alignment_core.load.read_model import read_model
from alignment_core.model_files import UNPACKED_FROM, UnpackedFrom, stamp_of
from alignment_core.spec import JobSpec, LocalSource, SingleFileSource
from tests.alignment_core.families.loras import pipeline_of
from tests.alignment_core.tiny import save_tiny_pipeline, tiny_spec

Network = TypeVar("Network", UNet2DConditionModel, AutoencoderKL)

PARTS = ("unet", "vae", "text_encoder")
ASSETS = Path(__file__).parents[3] / "demo" / "families" / "assets"


@pytest.fixture(scope="module")
def attentive_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with attention in its VAE, which every published one has and the converter expects."""
    model = save_tiny_pipeline(tmp_path_factory.mktemp("attentive"))
    config = json.loads((model / "vae" / "config.json").read_text())
    torch.manual_seed(1)
    made_of(AutoencoderKL, {**config, "mid_block_add_attention": True}).save_pretrained(model / "vae")
    return model


def made_of(kind: type[Network], config: dict[str, Any]) -> Network:
    made = kind.from_config(config)
    assert isinstance(made, kind)
    return made


def one_file(
    model: Path,
    path: Path,
    extra: dict[str, Tensor] | None = None,
    metadata: dict[str, str] | None = None,
    *,
    keys: FamilyKeys = SD,
    parts: Sequence[str] = PARTS,
) -> Path:
    """The model's weights under the original names, by the tables of the exports."""
    weights: dict[str, Tensor] = {}
    for part in parts:
        config = json.loads((model / part / "config.json").read_text())
        tensors = load_file(next((model / part).glob("*.safetensors")))
        weights |= keys.to_original(part, tensors, config)
    save_file({key: value.contiguous() for key, value in {**weights, **(extra or {})}.items()}, path, metadata)
    return path


def weights_of(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    return {f"{part}.{name}": value for part in PARTS for name, value in getattr(pipeline, part).state_dict().items()}


def test_the_unpacked_folder_has_the_weights_of_the_folder_bit_for_bit(attentive_model: Path, tmp_path: Path) -> None:
    folder = unpacked(one_file(attentive_model, tmp_path / "one.safetensors"), attentive_model, tmp_path / "cache")
    ours, theirs = weights_of(pipeline_of(folder)), weights_of(pipeline_of(attentive_model))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
        assert (folder / name).read_bytes() == (attentive_model / name).read_bytes()


def test_a_file_of_sdxl_has_both_text_encoders_bit_for_bit_though_they_have_one_width(tmp_path: Path) -> None:
    model = ASSETS / "sdxl"
    widths = [read_json(model / one / "config.json")["hidden_size"] for one in ("text_encoder", "text_encoder_2")]
    assert widths[0] == widths[1]
    parts = (*PARTS, "text_encoder_2")
    file = one_file(model, tmp_path / "one.safetensors", keys=SDXL, parts=parts)
    folder = unpacked(file, model, tmp_path / "cache")
    for part in parts:
        ours, theirs = (load_file(next((place / part).glob("*.safetensors"))) for place in (folder, model))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name].to(ours[name])) for name in theirs), part
    assert read_json(folder / "model_index.json")["_class_name"] == "StableDiffusionXLPipeline"


def test_a_run_on_one_file_ends_with_the_bytes_of_a_run_on_the_folder(
    attentive_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    file = one_file(attentive_model, tmp_path / "one.safetensors")
    training = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    on_folder = tiny_spec(attentive_model, tiny_pairs, training=training, evaluation={})
    source = {"type": "single_file", "path": str(file), "config": str(attentive_model)}
    on_file = JobSpec.model_validate({**on_folder.model_dump(), "model": source})
    files, models = [], []
    for name, spec in (("folder", on_folder), ("file", on_file)):
        list(align(spec, tmp_path / name, cache_dir=tmp_path / "cache"))
        latest = checkpoints.latest(tmp_path / name / "checkpoints")
        assert latest is not None
        list(export(latest, tmp_path / f"{name}-merged", "merged", cache_dir=tmp_path / "cache"))
        merged = next((tmp_path / f"{name}-merged" / "unet").glob("*.safetensors"))
        files.append((latest / "pytorch_lora_weights.safetensors").read_bytes())
        models.append(load_file(merged))
    assert files[0] == files[1]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0]), "exports find the folder too"


def test_a_file_is_unpacked_once_and_again_when_it_changes(attentive_model: Path, tmp_path: Path) -> None:
    file, cache = one_file(attentive_model, tmp_path / "one.safetensors"), tmp_path / "cache"
    folder = unpacked(file, attentive_model, cache)
    made = (folder / "model_index.json").stat().st_mtime_ns
    assert unpacked(file, attentive_model, cache) == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == made
    (tmp_path / "link.safetensors").symlink_to(file)
    assert unpacked(tmp_path / "link.safetensors", attentive_model, cache) == folder
    assert UnpackedFrom.model_validate_json((folder / UNPACKED_FROM).read_bytes()) == UnpackedFrom.of(file)
    one_file(attentive_model, file, {"v_pred": torch.zeros(0)})
    assert unpacked(file, attentive_model, cache) != folder
    assert not list((cache / "models").glob(".*"))


@pytest.mark.parametrize(
    ("extra", "metadata", "said"),
    [
        ({}, {}, ("epsilon", None)),
        ({"v_pred": torch.zeros(0)}, {}, ("v_prediction", None)),
        ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, {}, ("v_prediction", True)),
        ({}, {"modelspec.prediction_type": "v"}, ("v_prediction", None)),
    ],
)
def test_the_prediction_type_is_what_the_file_says(
    extra: dict[str, Tensor],
    metadata: dict[str, str],
    said: tuple[str, bool | None],
    attentive_model: Path,
    tmp_path: Path,
) -> None:
    file = one_file(attentive_model, tmp_path / "one.safetensors", extra, metadata)
    folder = unpacked(file, attentive_model, tmp_path / "cache")
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["prediction_type"], scheduler.get("rescale_betas_zero_snr") or None) == said


def test_half_precision_stays_what_it_is(attentive_model: Path, tmp_path: Path) -> None:
    file = one_file(attentive_model, tmp_path / "one.safetensors")
    save_file({key: value.half() for key, value in load_file(file).items()}, file)
    folder = unpacked(file, attentive_model, tmp_path / "cache")
    found = load_file(next((folder / "unet").glob("*.safetensors")))
    assert {value.dtype for value in found.values()} == {torch.float16}


REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "SD 2.x": ({"cond_stage_model.model.ln_final.weight": torch.zeros(1)}, "of Stable Diffusion 2.x"),
    "the refiner": ({"conditioner.embedders.0.model.ln_final.weight": torch.zeros(1)}, "SDXL's refiner"),
    "FLUX": ({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "of FLUX"),
    "anything": ({"weight": torch.zeros(1)}, "it has neither"),
    "an inpainting model": (
        {
            "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.zeros(1),
            "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3),
        },
        "takes 9 channels; expected 4",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_told_what_they_are(kind: str, tmp_path: Path) -> None:
    tensors, told = REFUSED[kind]
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(ModelError, match=rf"one\.safetensors: .*{told}"):
        unpacked(tmp_path / "one.safetensors", None, tmp_path / "cache")


@pytest.mark.parametrize("name", ["one.ckpt", "one.safetensors"])
def test_pickles_are_not_read_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / name)
    with pytest.raises(ModelError, match="pickled weights are not read"):
        unpacked(tmp_path / name, None, tmp_path / "cache")


def test_a_file_of_other_shapes_than_its_configs_fails_with_its_name_and_a_hint(
    attentive_model: Path, tmp_path: Path
) -> None:
    file = one_file(attentive_model, tmp_path / "one.safetensors")
    other = tmp_path / "other"
    shutil.copytree(attentive_model, other)
    config = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps({**config, "block_out_channels": [4, 8]}))
    with pytest.raises(ModelError, match=r"one\.safetensors: could not be unpacked") as caught:
        unpacked(file, other, tmp_path / "cache")
    assert caught.value.hint is not None
    assert not list((tmp_path / "cache" / "models").iterdir()), "nothing half done is left"


# --- what is known of it before a run ---


def test_what_is_read_of_a_file_is_what_is_read_of_its_folder(attentive_model: Path, tmp_path: Path) -> None:
    file = one_file(attentive_model, tmp_path / "one.safetensors")
    of_file = read_model(SingleFileSource(path=str(file), config=str(attentive_model)))
    of_folder = read_model(LocalSource(path=str(attentive_model)))
    assert of_file.problem is None
    assert of_file.layers is not None
    assert of_file.model_copy(update={"stamp": of_folder.stamp}) == of_folder
    assert of_file.stamp == stamp_of(file) is not None
    one_file(attentive_model, file, {"v_pred": torch.zeros(0)})
    changed = read_model(SingleFileSource(path=str(file), config=str(attentive_model)))
    assert changed.prediction_type == "v_prediction"
    assert changed.stamp != of_file.stamp


def test_a_file_with_the_bundled_configs_is_read_as_the_published_model(attentive_model: Path, tmp_path: Path) -> None:
    report = read_model(SingleFileSource(path=str(one_file(attentive_model, tmp_path / "one.safetensors"))))
    assert (report.resolution, report.num_parameters, report.num_timesteps) == (512, 859_520_964, 1000)
    assert report.has_layer("attn1.to_q")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_run_would_refuse_is_a_files_problem_before_it(kind: str, tmp_path: Path) -> None:
    tensors, told = REFUSED[kind]
    save_file(tensors, tmp_path / "one.safetensors")
    problem = read_model(SingleFileSource(path=str(tmp_path / "one.safetensors"))).problem
    assert problem is not None
    assert told in problem.message


# --- the bundled configs are those of the published models ---


def num_parameters(make: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("sd", {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        (
            "sdxl",
            {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
        ),
    ],
)
def test_bundled_configs_describe_models_of_the_published_sizes(family: str, sizes: dict[str, int]) -> None:
    configs = CONFIGS[family]  # pyright: ignore[reportArgumentType]
    makers: dict[str, Callable[[], torch.nn.Module]] = {
        "unet": lambda: made_of(UNet2DConditionModel, configs["unet/config.json"]),
        "vae": lambda: made_of(AutoencoderKL, configs["vae/config.json"]),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**configs["text_encoder/config.json"])),
        "text_encoder_2": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2/config.json"])),
    }
    assert {name: num_parameters(makers[name]) for name in sizes} == sizes


def test_exports_and_configs_agree_on_the_first_layer_that_tells_an_inpainting_model() -> None:
    for keys, unet in ((SD, CONFIGS["sd"]["unet/config.json"]), (SDXL, CONFIGS["sdxl"]["unet/config.json"])):
        named = keys.to_original("unet", {"conv_in.weight": torch.zeros(1, unet["in_channels"])}, unet)
        assert list(named) == ["model.diffusion_model.input_blocks.0.0.weight"]


def test_the_bundled_tokenizer_is_clips(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    assert len(tokenizer) == NUM_TOKENS
    assert tokenizer.model_max_length == 77
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("", padding="max_length", max_length=4).input_ids == [49406, 49407, 49407, 49407]
    write_clip_tokenizer(tmp_path / "second", padding="!")
    second = CLIPTokenizer.from_pretrained(tmp_path / "second", local_files_only=True)
    assert second("", padding="max_length", max_length=4).input_ids == [49406, 49407, 0, 0]
