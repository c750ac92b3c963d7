"""A LoRA that others saved is found whole, whatever it calls its layers, and adds to each weight what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignment_core.errors import ModelError
from alignment_core.families.flux_keys import FLUX
from alignment_core.families.keys import FamilyKeys, LoraLayer
from alignment_core.families.lora_file import read_lora, report_of
from alignment_core.families.lora_places import Components, config_of, place
from alignment_core.families.merge import joined, merge, update_of
from alignment_core.families.sd3_keys import SD3
from alignment_core.families.sd_keys import SD
from alignment_core.families.sdxl_keys import SDXL
from tests.alignment_core.families.loras import (
    Layers,
    pipeline_of,
    random_layers,
    save_diffusers,
    save_kohya,
    save_old_diffusers,
    save_peft,
)
from tests.alignment_core.tiny_flux import save_tiny_flux
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

# linear layers, 3x3 convolutions, and the transformer's 1x1 convolutions
ENDINGS = (
    "to_q",
    "to_out.0",
    "ff.net.2",
    "conv1",
    "proj_in",
    "conv_in",
    "downsamplers.0.conv",
    "time_embedding.linear_1",
)
FAMILIES = Path(__file__).parents[3] / "demo" / "families" / "assets"
TEXT_ENDINGS = ("q_proj", "fc1")


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    return pipeline_of(tiny_model)


@pytest.fixture(scope="module")
def components(pipeline: StableDiffusionPipeline) -> Components:
    return {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}


@pytest.fixture(scope="module")
def unet_layers(pipeline: StableDiffusionPipeline) -> Layers:
    return random_layers(pipeline.unet, ENDINGS)


@pytest.fixture(scope="module")
def text_layers(pipeline: StableDiffusionPipeline) -> Layers:
    return random_layers(pipeline.text_encoder, TEXT_ENDINGS)


SAVED: dict[str, Callable[[Layers, Layers, Components, Path], Path]] = {
    "peft": lambda unet, _text, _components, path: save_peft(unet, path),
    "diffusers": lambda unet, text, _components, path: save_diffusers({"unet": unet, "text_encoder": text}, path),
    "kohya": lambda unet, text, _components, path: save_kohya({"unet": unet, "text_encoder": text}, path),
    "kohya, original modules": lambda unet, text, components, path: save_kohya(
        {"unet": unet, "text_encoder": text},
        path,
        config=components["unet"].config,  # pyright: ignore[reportArgumentType]
    ),
}


@pytest.mark.parametrize("names", SAVED)
def test_every_tools_names_find_the_same_layers_with_the_same_effect(
    names: str, unet_layers: Layers, text_layers: Layers, components: Components, tmp_path: Path
) -> None:
    file = read_lora(SAVED[names](unet_layers, text_layers, components, tmp_path / "lora.safetensors"))
    assert file.format == names.split(",")[0]
    placed = place(file, components, SD)
    assert same_effect(placed["unet"], unet_layers)
    assert names == "peft" or same_effect(placed["text_encoder"], text_layers)


def same_effect(found: dict[str, LoraLayer], expected: Layers) -> bool:
    effects = {name: by_hand(one) for name, one in expected.items()}
    return found.keys() == effects.keys() and all(
        bool(torch.allclose(update_of(one).double(), effects[name], rtol=0, atol=1e-6)) for name, one in found.items()
    )


def by_hand(layer: LoraLayer) -> Tensor:
    """B A alpha / rank in float64, as a sum over ranks."""
    down, up = layer.down.double(), layer.up.double()
    product = torch.einsum("or,r...->o...", up.flatten(1), down)
    return product * layer.alpha / down.shape[0]


def test_files_of_before_peft_are_read_with_scale_one(
    pipeline: StableDiffusionPipeline, components: Components, tmp_path: Path
) -> None:
    attention = random_layers(pipeline.unet, ("to_q", "to_k", "to_v", "to_out.0"), rank=2, alpha=2.0)
    placed = place(read_lora(save_old_diffusers(attention, tmp_path / "old.safetensors")), components, SD)
    assert same_effect(placed["unet"], attention)


def test_what_kohyas_export_writes_is_what_is_read(
    unet_layers: Layers, text_layers: Layers, components: Components, tmp_path: Path
) -> None:
    """Reading is the inverse of `FamilyKeys.to_kohya`, layer by layer."""
    layers = {"unet": unet_layers, "text_encoder": text_layers}
    save_by_table(SD, layers, components, tmp_path / "out.safetensors")
    placed = place(read_lora(tmp_path / "out.safetensors"), components, SD)
    assert same_effect(placed["unet"], unet_layers)
    assert same_effect(placed["text_encoder"], text_layers)


def test_matrices_stand_for_kernels_of_one_pixel(components: Components, unet_layers: Layers, tmp_path: Path) -> None:
    name, layer = next((name, one) for name, one in unet_layers.items() if name.endswith("proj_in"))
    flat = LoraLayer(layer.down.flatten(1), layer.up.flatten(1), layer.alpha)
    placed = place(read_lora(save_kohya({"unet": {name: flat}}, tmp_path / "flat.safetensors")), components, SD)
    assert same_effect(placed["unet"], {name: layer})


def test_merging_adds_the_effect_to_every_kind_of_layer(
    tiny_model: Path, unet_layers: Layers, text_layers: Layers, tmp_path: Path
) -> None:
    pipeline, before = pipeline_of(tiny_model), pipeline_of(tiny_model)
    components = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    path = save_kohya({"unet": unet_layers, "text_encoder": text_layers}, tmp_path / "lora.safetensors")
    merge(components, place(read_lora(path), components, SD))
    for component, layers in (("unet", unet_layers), ("text_encoder", text_layers)):
        for name, value in getattr(pipeline, component).state_dict().items():
            change = value.double() - getattr(before, component).state_dict()[name].double()
            module = name.removesuffix(".weight")
            expected = by_hand(layers[module]) if module in layers else torch.zeros_like(change)
            assert torch.allclose(change, expected, rtol=0, atol=1e-6), name


def test_the_merged_pipeline_draws_what_diffusers_fused_pipeline_draws(
    tiny_model: Path, unet_layers: Layers, text_layers: Layers, tmp_path: Path
) -> None:
    saved = save_diffusers({"unet": unet_layers, "text_encoder": text_layers}, tmp_path / "lora.safetensors")
    ours, theirs, bare = (pipeline_of(tiny_model) for _ in range(3))
    components = {"unet": ours.unet, "text_encoder": ours.text_encoder}
    merge(components, place(read_lora(saved), components, SD))
    theirs.load_lora_weights(str(tmp_path), weight_name=saved.name)
    theirs.fuse_lora()
    drawn = [_draw(one) for one in (ours, theirs, bare)]
    assert torch.allclose(drawn[0], drawn[1], rtol=0, atol=1e-5)
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3)


def _draw(pipeline: StableDiffusionPipeline) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(
        pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="np").images  # pyright: ignore[reportAttributeAccessIssue]
    )


def test_two_loras_as_one_have_the_effect_of_both(pipeline: StableDiffusionPipeline) -> None:
    first = random_layers(pipeline.unet, ("to_q", "conv1"))
    second = random_layers(pipeline.unet, ("to_q", "to_k"), rank=2, alpha=3.0)
    for name, one in joined(first, second).items():
        expected = sum(by_hand(lora[name]) for lora in (first, second) if name in lora)
        assert torch.allclose(update_of(one).double(), torch.as_tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("lora_unet_mid_block_attentions_0.dora_scale", "DoRA"),
        ("lora_unet_mid_block_attentions_0.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lora_mid.weight", "Tucker"),
        ("conv_in.weight", "no part of a LoRA"),
    ],
)
def test_a_key_that_is_not_understood_is_named(key: str, told: str, unet_layers: Layers, tmp_path: Path) -> None:
    path = save_kohya({"unet": unet_layers}, tmp_path / "lora.safetensors")
    save_file({**load_file(path), key: torch.zeros(2, 2)}, path)
    with pytest.raises(ModelError, match=f"lora.safetensors: unknown key '{key}'.*{told}"):
        read_lora(path)


def test_a_layer_that_the_model_does_not_have_is_named_with_one_that_it_has(
    components: Components, tmp_path: Path
) -> None:
    layer = LoraLayer(torch.zeros(2, 8), torch.zeros(8, 2), 2.0)
    path = save_kohya({"unet": {"down_blocks.7.to_q": layer}}, tmp_path / "lora.safetensors")
    with pytest.raises(
        ModelError, match=r"'lora_unet_down_blocks_7_to_q' is no layer of the model; .*'lora_unet_conv_in'"
    ):
        place(read_lora(path), components, SD)


def test_layers_of_other_shapes_are_told_with_both(components: Components, tmp_path: Path) -> None:
    layer = LoraLayer(torch.zeros(2, 9, 3, 3), torch.zeros(8, 2, 1, 1), 2.0)
    path = save_kohya({"unet": {"conv_in": layer}}, tmp_path / "lora.safetensors")
    with pytest.raises(
        ModelError, match=r"down of \[2, 9, 3, 3\].*is of \[8, 4, 3, 3\]: expected \[2, 4, 3, 3\] and \[8, 2, 1, 1\]"
    ):
        place(read_lora(path), components, SD)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    torch.save({"lora_unet_conv_in.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match="pickled weights are not read"):
        read_lora(tmp_path / "lora.safetensors")


def test_half_of_a_layer_is_refused(unet_layers: Layers, tmp_path: Path) -> None:
    path = save_kohya({"unet": unet_layers}, tmp_path / "lora.safetensors")
    tensors = load_file(path)
    del tensors["lora_unet_conv_in.lora_up.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"'lora_unet_conv_in' has no up \(B\)"):
        read_lora(path)


def test_a_file_of_pefts_says_its_alpha_by_the_config_beside_it_or_not_at_all(
    unet_layers: Layers, tmp_path: Path
) -> None:
    path = save_peft(unet_layers, tmp_path / "lora.safetensors")
    assert read_lora(path).says_alpha
    (tmp_path / "adapter_config.json").unlink()
    assert not read_lora(path).says_alpha
    assert not report_of(read_lora(path)).says_alpha
    given = read_lora(path, 16.0)
    assert given.says_alpha
    assert {layer.alpha for layer in given.layers.values()} == {16.0}
    assert read_lora(save_kohya({"unet": unet_layers}, tmp_path / "kohya.safetensors")).says_alpha


# --- other families' names ---


@pytest.fixture(scope="module")
def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(FAMILIES / "sdxl")


def sdxl_layers(pipeline: StableDiffusionXLPipeline) -> dict[str, Layers]:
    return {
        "unet": random_layers(pipeline.unet, ENDINGS),
        "text_encoder": random_layers(pipeline.text_encoder, TEXT_ENDINGS),
        "text_encoder_2": random_layers(pipeline.text_encoder_2, TEXT_ENDINGS),
    }


def sdxl_components(pipeline: StableDiffusionXLPipeline) -> dict[str, nn.Module]:
    return {name: getattr(pipeline, name) for name in ("unet", "text_encoder", "text_encoder_2")}


@pytest.mark.parametrize("names", ["kohya", "diffusers"])
def test_sdxl_has_a_text_encoder_more_and_the_original_modules_in_kohyas_files(
    names: str, sdxl: StableDiffusionXLPipeline, tmp_path: Path
) -> None:
    layers, components = sdxl_layers(sdxl), sdxl_components(sdxl)
    path = tmp_path / "sdxl.safetensors"
    if names == "diffusers":
        save_diffusers(layers, path)
    else:
        save_by_table(SDXL, layers, components, path)
        keys = load_file(path).keys()
        assert "lora_unet_input_blocks_0_0.alpha" in keys
        assert {key.partition("_text")[0] for key in keys if "_te" in key[:8]} == {"lora_te1", "lora_te2"}
    placed = place(read_lora(path), components, SDXL)
    assert placed.keys() == layers.keys()
    assert all(same_effect(placed[name], layers[name]) for name in layers)


def test_kohyas_file_of_sdxl_adds_what_diffusers_own_reader_adds(tmp_path: Path) -> None:
    ours, theirs = (StableDiffusionXLPipeline.from_pretrained(FAMILIES / "sdxl") for _ in range(2))
    # one scale everywhere: of an attention layer's own alpha, diffusers' reader loses the name
    layers = {"unet": random_layers(ours.unet, ("to_q", "to_out.0", "ff.net.2"), rank=2, alpha=2.0)}
    path = tmp_path / "sdxl.safetensors"
    save_by_table(SDXL, layers, sdxl_components(ours), path)
    merge(sdxl_components(ours), place(read_lora(path), sdxl_components(ours), SDXL))
    theirs.load_lora_weights(str(tmp_path), weight_name=path.name)
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    expected = theirs.unet.state_dict()
    for name, value in ours.unet.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name


def test_transformers_are_known_by_diffusers_names_with_their_component_and_without(tmp_path: Path) -> None:
    transformer = SD3Transformer2DModel.from_pretrained(FAMILIES / "sd3", subfolder="transformer")
    layers = random_layers(transformer, ("to_q", "add_k_proj", "ff.net.2"))
    components: dict[str, nn.Module] = {"transformer": transformer}
    assert layers
    saved = [
        save_diffusers({"transformer": layers}, tmp_path / "prefixed.safetensors"),
        save_peft(layers, tmp_path / "peft.safetensors"),
    ]
    for path in saved:
        assert same_effect(place(read_lora(path), components, SD3)["transformer"], layers)


TRANSFORMERS: dict[str, tuple[Callable[[Path], Path], type[nn.Module], FamilyKeys]] = {
    "sd3": (save_tiny_sd3, SD3Transformer2DModel, SD3),
    "flux": (save_tiny_flux, FluxTransformer2DModel, FLUX),
}
# some of what the original joins, what it turns round, and what it has as it is
OF_TRANSFORMERS = ("to_q", "to_v", "add_k_proj", "proj_mlp", "norm_out.linear", "norm1_context.linear", "ff.net.2")


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_what_kohyas_file_joins_is_parted_again(family: str, tmp_path: Path) -> None:
    save, network, keys = TRANSFORMERS[family]
    transformer: Any = network.from_pretrained(save(tmp_path) / "transformer")  # pyright: ignore[reportAttributeAccessIssue]
    layers = random_layers(transformer, OF_TRANSFORMERS)
    save_by_table(keys, {"transformer": layers}, {"transformer": transformer}, tmp_path / "lora.safetensors")
    placed = place(read_lora(tmp_path / "lora.safetensors"), {"transformer": transformer}, keys)
    assert same_effect(placed["transformer"], layers)


def test_a_joined_lora_that_was_trained_as_one_is_parted_with_its_whole_rank(tmp_path: Path) -> None:
    transformer = FluxTransformer2DModel.from_pretrained(save_tiny_flux(tmp_path) / "transformer")
    name, generator = "lora_unet_double_blocks_0_img_attn_qkv", torch.Generator().manual_seed(1)
    down, up = torch.randn(3, 16, generator=generator), torch.randn(48, 3, generator=generator)
    path = tmp_path / "lora.safetensors"
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.5)}, path
    )
    placed = place(read_lora(path), {"transformer": transformer}, FLUX)["transformer"]
    parts = [placed[f"transformer_blocks.0.attn.to_{one}"] for one in "qkv"]
    assert torch.allclose(torch.cat([update_of(one) for one in parts]), 0.5 * up @ down, atol=1e-6)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up[:40].contiguous()}, path)
    with pytest.raises(ModelError, match="has an up of \\[40, 3\\], and the model's layer 48 rows"):
        place(read_lora(path), {"transformer": transformer}, FLUX)


def save_by_table(keys: FamilyKeys, layers: dict[str, Layers], components: Components, path: Path) -> None:
    """kohya's file as the exports write it."""
    tensors = {}
    for component, updates in layers.items():
        for name, one in keys.to_kohya(component, updates, config_of(components[component])).items():
            tensors |= {f"{name}.lora_down.weight": one.down, f"{name}.lora_up.weight": one.up}
            tensors[f"{name}.alpha"] = torch.tensor(one.alpha)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
