"""Every form of a checkpoint, loaded back by the tool that it is for: the same effect on every layer, the same images."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alignment_core.errors import AlignmentError
from alignment_core.events import ExportCompleted, ExportProgressed
from alignment_core.exports.export import export
from alignment_core.exports.model_folder import LEFT_OUT
from alignment_core.exports.saved_lora import SavedLora
from alignment_core.families.merge import update_of
from alignment_core.families.source import ModelFolder
from alignment_core.spec.exports import EXPORTS, OF_A_LORA, OF_A_WHOLE_MODEL, ExportFormat, refusal
from alignment_core.spec.places import RunLabel, Sources
from tests.alignment_core.exports.flux_readers import flux_readers_of_width
from tests.alignment_core.exports.models import (
    DENOISER,
    PIPELINES,
    TRAINED,
    draw,
    full_checkpoint,
    load,
    lora_checkpoint,
    save_model,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
SINGLE = "model.safetensors"
FLUX_WIDTH = 16  # of the tiny one
Exported = Callable[[ExportFormat], Path]


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3", "flux"])
def family(request: pytest.FixtureRequest) -> Iterator[str]:
    with flux_readers_of_width(FLUX_WIDTH):
        yield request.param


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def lora(family: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora_checkpoint(family, model, tmp_path_factory.mktemp("lora"), TRAINED[family])


@pytest.fixture(scope="module")
def exported(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return lambda format: written(lora, tmp_path_factory.mktemp(format) / "out", format)


def written(checkpoint: Path, out: Path, format: ExportFormat, **options: Any) -> Path:
    *progress, last = export(checkpoint, out, format, **options)
    assert progress
    assert all(isinstance(event, ExportProgressed) for event in progress)
    assert isinstance(last, ExportCompleted)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {file.path for file in last.files} == found >= {"README.md"}
    return out


def updates(lora: Path) -> dict[str, torch.Tensor]:
    """B A alpha / rank of every layer, by component and module."""
    saved = SavedLora(lora / "pytorch_lora_weights.safetensors")
    return {
        f"{component}.{module}": update_of(layer)
        for component, layers in saved.components.items()
        for module, layer in layers.items()
    }


def assert_same_updates(found: dict[str, torch.Tensor], lora: Path) -> None:
    expected = updates(lora)
    assert found.keys() == expected.keys()
    for name, update in expected.items():
        assert update.abs().max() > 1e-3
        torch.testing.assert_close(found[name].reshape(update.shape), update, rtol=0, atol=1e-6)


def updates_in(pipeline: Any, components: tuple[str, ...], adapter: str) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": update
        for component in components
        for name, module in getattr(pipeline, component).named_modules()
        if hasattr(module, "get_delta_weight") and adapter in module.lora_A
        # of what the original joins, the layers that were not trained come back as zeros
        if (update := module.get_delta_weight(adapter).detach()).any()
    }


@pytest.mark.parametrize("family", ["sd3", "flux"], indirect=True)
def test_comfyui_makes_the_merged_model_of_the_base_and_the_kohya_file(
    family: str, model: Path, lora: Path, exported: Exported, tmp_path: Path
) -> None:
    base = load_file(
        written(full_checkpoint(family, model, tmp_path / "base", 0.0), tmp_path / "out", "single_file") / SINGLE
    )
    by_comfyui = added_by_comfyui(load_file(exported("kohya") / "lora.safetensors"), base)
    expected = load_file(exported("single_file") / SINGLE)
    assert by_comfyui.keys() == expected.keys()
    assert any((expected[name] != base[name]).any() for name in base)
    for name, weight in expected.items():
        torch.testing.assert_close(by_comfyui[name], weight, rtol=0, atol=1e-6)


def added_by_comfyui(lora: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`model_lora_keys_unet` of comfy/lora.py: a layer's own name in the file, with underscores for dots."""
    found, prefix = dict(weights), "model.diffusion_model."
    layers = {
        f"lora_unet_{name.removeprefix(prefix).removesuffix('.weight').replace('.', '_')}": name for name in weights
    }
    for name in {key.partition(".")[0] for key in lora}:
        down, up = lora[f"{name}.lora_down.weight"], lora[f"{name}.lora_up.weight"]
        found[layers[name]] = weights[layers[name]] + up @ down * (lora[f"{name}.alpha"] / len(down))
    return found


def test_diffusers_adds_the_same_to_every_layer(family: str, model: Path, lora: Path, exported: Exported) -> None:
    diffusers_adds_the_same(exported("diffusers"), family, model, lora)


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"], indirect=True)  # it reads no kohya files of SD 3
def test_diffusers_adds_the_same_by_a_kohya_file(family: str, model: Path, lora: Path, exported: Exported) -> None:
    diffusers_adds_the_same(exported("kohya"), family, model, lora)


def diffusers_adds_the_same(out: Path, family: str, model: Path, lora: Path) -> None:
    pipeline, file = load(family, model), next(out.glob("*.safetensors"))
    pipeline.load_lora_weights(out, weight_name=file.name, adapter_name="read")
    assert_same_updates(updates_in(pipeline, TRAINED[family], "read"), lora)


def test_peft_adds_the_same_to_every_layer(family: str, model: Path, lora: Path, exported: Exported) -> None:
    out, pipeline, found = exported("peft"), load(family, model), {}
    for component in TRAINED[family]:
        adapted = PeftModel.from_pretrained(getattr(pipeline, component), out / component)
        for name, module in adapted.named_modules():
            if hasattr(module, "get_delta_weight"):
                path = name.removeprefix("base_model.model.")
                found[f"{component}.{path}"] = module.get_delta_weight("default").detach()
    assert_same_updates(found, lora)


def test_a_merged_folder_is_the_base_and_the_update_in_the_bases_precision(
    family: str, model: Path, lora: Path, exported: Exported
) -> None:
    merged, base = load(family, exported("merged")), load(family, model)
    found = {}
    for name in updates(lora):
        component, _, module = name.partition(".")
        weights = [getattr(one, component).get_submodule(module).weight.detach() for one in (merged, base)]
        assert weights[0].dtype == weights[1].dtype
        found[name] = weights[0] - weights[1]
    assert_same_updates(found, lora)
    assert torch.equal(merged.vae.decoder.conv_in.weight, base.vae.decoder.conv_in.weight)


def test_same_seeds_draw_the_same_images_from_every_form(
    family: str, model: Path, lora: Path, exported: Exported
) -> None:
    adapted = load(family, model)
    base = draw(adapted)
    adapted.load_lora_weights(lora)
    expected, merged = draw(adapted), exported("merged")
    assert (expected - base).abs().max() > 1e-3
    single = PIPELINES[family].from_single_file(
        str(exported("single_file") / "model.safetensors"), config=str(merged), local_files_only=True
    )
    for component in ("text_encoder_2", "text_encoder_3"):
        if hasattr(single, component):
            getattr(single, component).eval()  # diffusers leaves a T5 with its dropout
    for pipeline in (load(family, merged), single):
        torch.testing.assert_close(draw(pipeline), expected, rtol=0, atol=1e-4)
    whole = load(family, merged)
    for component in (*TRAINED[family], "vae", "text_encoder"):
        assert_same_weights(getattr(single, component), getattr(whole, component))


def assert_same_weights(one: Any, other: Any) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_full_fine_tune_is_had_whole_in_every_form(family: str, model: Path, tmp_path: Path) -> None:
    checkpoint = full_checkpoint(family, model, tmp_path / "full")
    trained = load(family, checkpoint / "pipeline")
    out = {format: written(checkpoint, tmp_path / format, format) for format in OF_A_WHOLE_MODEL}
    denoiser = DENOISER[family]
    alone = type(getattr(trained, denoiser)).from_pretrained(out["diffusers"] / denoiser, local_files_only=True)
    single = PIPELINES[family].from_single_file(
        str(out["single_file"] / "model.safetensors"), config=str(out["merged"]), local_files_only=True
    )
    for found in (alone, *(getattr(one, denoiser) for one in (load(family, out["merged"]), single))):
        assert_same_weights(found, getattr(trained, denoiser))
    for format in set(OF_A_LORA) - set(OF_A_WHOLE_MODEL):
        with pytest.raises(AlignmentError, match="a full fine-tune has no LoRA"):
            written(checkpoint, tmp_path / format, format)


def test_half_precision_stays_and_a_variant_leaves_the_names(
    family: str, model: Path, lora: Path, tmp_path: Path
) -> None:
    half = load(family, model).to(torch.float16)
    lora = Path(shutil.copytree(lora, tmp_path / lora.name))
    half.save_pretrained(tmp_path / "half", variant="fp16", safe_serialization=True)
    manifest = json.loads((lora / "manifest.json").read_text())
    manifest["spec"]["model"] = {"type": "catalog", "name": "half"}
    manifest["base_model_sha256"] = ModelFolder(tmp_path / "half", "fp16").model_fingerprint()
    (lora / "manifest.json").write_text(json.dumps(manifest))
    sources = Sources.model_validate({"models": {"half": {"type": "local", "path": str(tmp_path / "half")}}})
    out = written(lora, tmp_path / "out", "merged", sources=sources)
    assert not [path.name for path in out.rglob("*") if "fp16" in path.name]
    weights = load_file(out / DENOISER[family] / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    with pytest.raises(AlignmentError, match="was not told where its catalog models are"):
        written(lora, tmp_path / "lost", "merged")


def test_another_base_model_is_refused_with_the_hashes_of_both(tmp_path: Path) -> None:
    model = save_model("sd", tmp_path)
    checkpoint = lora_checkpoint("sd", model, tmp_path / "lora", ("unet",))
    trained_on, weights = ModelFolder(model, None).model_fingerprint(), next((model / "vae").glob("*.safetensors"))
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    there = ModelFolder(model, None).model_fingerprint()
    for format in ("merged", "single_file", "kohya"):
        with pytest.raises(
            AlignmentError, match=f"the SHA-256 {trained_on}, and the one that is there now has {there}"
        ) as error:
            written(checkpoint, tmp_path / format, format)
        assert error.value.code == "base_model_differs"
    written(checkpoint, tmp_path / "peft", "peft")  # it needs no base model


def test_a_base_model_with_a_lora_merged_is_known_by_its_folder(tmp_path: Path) -> None:
    model = save_model("sd", tmp_path)
    checkpoint = lora_checkpoint("sd", model, tmp_path / "lora", ("unet",))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["spec"]["start"] = {"lora": {"type": "local", "path": "/style.safetensors"}, "mode": "merge"}
    of_folder, manifest["base_model_sha256"] = manifest["base_model_sha256"], "2" * 64  # the LoRA's hash is in it
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    written(checkpoint, tmp_path / "of an older manifest", "kohya")
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "folder_sha256": of_folder}))
    written(checkpoint, tmp_path / "out", "kohya")
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "folder_sha256": "3" * 64}))
    with pytest.raises(AlignmentError, match="3" * 64):
        written(checkpoint, tmp_path / "refused", "kohya")


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"], indirect=True)
def test_a_models_hash_is_that_of_what_a_run_reads_of_it(family: str, model: Path) -> None:
    folder = ModelFolder(model, None)
    parts = [one.name for one in model.iterdir() if one.is_dir() and one.name not in LEFT_OUT]
    assert sorted(folder.parts) == sorted(parts)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    model = save_model("sd", tmp_path)
    checkpoint = lora_checkpoint("sd", model, tmp_path / "lora", ("unet",))
    file = checkpoint / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(AlignmentError, match="differs from manifest"):
        written(checkpoint, tmp_path / "out", "diffusers")


def test_the_header_of_a_kohya_file_says_what_it_is_for(family: str, exported: Exported) -> None:
    with safe_open(exported("kohya") / "lora.safetensors", framework="pt") as file:
        header = file.metadata()
    dims = ("3", "6.0") if DENOISER[family] == "unet" else ("Dynamic", "Dynamic")  # joined layers have a block a part
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_v2"]) == (*dims, "False")
    versions = {"sd": "sd_v1", "sdxl": "sdxl_base_v1-0", "sd3": "sd3.5", "flux": "flux1"}
    assert header["ss_base_model_version"] == versions[family]
    assert header["modelspec.architecture"].endswith("/lora")


def test_equal_exports_are_equal_bytes(lora: Path, tmp_path: Path) -> None:
    twice = [written(lora, tmp_path / str(number), "kohya") / "lora.safetensors" for number in range(2)]
    assert twice[0].read_bytes() == twice[1].read_bytes()


def test_the_card_says_where_the_weights_come_from_and_quotes_what_users_wrote(tmp_path: Path) -> None:
    checkpoint = lora_checkpoint("sd", save_model("sd", tmp_path), tmp_path / "lora", ("unet",))
    label = RunLabel(job_id="job_1", job_name="<b>`vivid`\n# shapes", dataset_name="a | b")
    card = (written(checkpoint, tmp_path / "out", "diffusers", sources=Sources(label=label)) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "# `<b>'vivid' # shapes`\n" in card
    assert "| Data set | `a \N{BROKEN BAR} b` |" in card
    for told in ("`job_1`", "diffusion_dpo", "rank 3, alpha 6", "## Licence", "There is no report"):
        assert told in card
    assert str(tmp_path) not in card, "a path of the operator's"


def test_the_table_says_no_in_sentences() -> None:
    assert set(EXPORTS) == {"sd", "sdxl", "sd3", "flux"}
    assert refusal("kohya", "full") == (
        "a full fine-tune has no LoRA that kohya could hold; ask for diffusers, merged or single_file"
    )
    for kinds in EXPORTS.values():
        for kind, offered in kinds.items():
            assert {one for one in OF_A_LORA if refusal(one, kind) is None} == set(offered)


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "exports.md").read_text(encoding="utf-8")
    for family, kinds in EXPORTS.items():
        assert f"| `{family}` | {', '.join(kinds['lora'])} | {', '.join(kinds['full'])} |\n" in page
    assert page.count("\n| `sd") + page.count("\n| `flux") == len(EXPORTS)
