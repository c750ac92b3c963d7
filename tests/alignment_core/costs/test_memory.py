"""What a run will allocate, against what was measured on an H100: random weights at the published sizes of the models.

The shapes are those of diffusers' networks, made on the meta device, which holds no numbers.
"""

import math
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import ModelMixin, SD3Transformer2DModel, UNet2DConditionModel

from alignment_core.costs.layers import layers_of
from alignment_core.costs.memory import Memory, gradients_in_buckets, memory_of
from alignment_core.costs.vae import decoding_bytes
from alignment_core.model_files import ModelReport
from alignment_core.spec import JobSpec
from alignment_core.spec.families import FamilyName

PAIRS = {"type": "diffusion_dpo", "dataset": {"type": "local", "path": "/pairs"}}
ONLINE = {"prompts": ["a"], "rewards": [{"type": "colorfulness"}], "guidance_scale": 7.5}
TAILORPO, D3PO = ({"type": name, **ONLINE} for name in ("tailorpo", "d3po"))
PIPELINES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
}
PARTS: dict[str, dict[str, int]] = {
    "sd": {"vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {},  # the larger models' figures are taken to be of the denoiser alone, latents and prompts being ready
    "sd3": {},
}


def _network(family: FamilyName) -> ModelMixin:
    match family:
        case "sd":
            return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        case "sdxl":
            return UNet2DConditionModel(
                cross_attention_dim=2048,
                attention_head_dim=(5, 10, 20),
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            )
        case _:
            return SD3Transformer2DModel(
                num_layers=24,
                num_attention_heads=24,
                joint_attention_dim=4096,
                caption_projection_dim=1536,
                pooled_projection_dim=2048,
                pos_embed_max_size=384,
                dual_attention_layers=tuple(range(13)),
                qk_norm="rms_norm",
            )


@cache
def published(family: FamilyName) -> ModelReport:
    with torch.device("meta"):
        shapes = {name: tuple(one.shape) for name, one in _network(family).named_parameters()}
    return ModelReport(
        pipeline_class=PIPELINES[family],
        resolution=512 if family == "sd" else 1024,
        resolution_unit=16 if family == "sd3" else None,
        num_parameters=sum(map(math.prod, shapes.values())),
        layers={name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) in (2, 4)},
        norms_queries=family == "sd3",
        part_parameters=PARTS[family],
        vae_channels=128,
    )


def estimated(family: FamilyName, *, batch: int, is_half: bool = True, remade: bool = True, **changes: Any) -> Memory:
    training = {"batch_size": batch, "gradient_accumulation_steps": 1, **changes.pop("training", {})}
    spec = JobSpec.model_validate({"model": "a", "method": PAIRS, "training": training, **changes}).resolved(family)
    found = memory_of(spec, published(family), family, is_half=is_half, remade=remade)
    assert found is not None
    return found


NOTHING_LEFT: dict[str, Any] = {"resources": {"device": "cpu"}}  # nor did it the card in the runs of then
NOTHING_KEPT: dict[str, Any] = {
    "resources": {"device": "cpu", "processes": 2}
}  # nor were predictions in the runs of then
CHECKPOINTED: dict[str, Any] = {"training": {"gradient_checkpointing": True}}
FULL: dict[str, Any] = {"adapter": {"type": "full"}}


@pytest.mark.parametrize(
    ("family", "batch", "changes", "measured_gib"),
    [
        ("sd", 4, {"is_half": False}, 16.4),
        ("sd", 1, {}, 4.5),
        ("sd", 4, {}, 10.9),
        ("sd", 8, {}, 19.6),
        ("sd", 16, {}, 37.0),
        ("sd", 24, {}, 54.3),
        ("sd", 32, {}, 71.7),
        ("sd", 4, FULL, 24.5),
        ("sd", 8, FULL, 34.0),
        ("sd", 16, FULL, 53.0),
        ("sd", 8, {"method": TAILORPO, **NOTHING_KEPT}, 19.6),
        ("sd", 8, {"method": D3PO}, 37.0),
        ("sdxl", 4, {}, 62.9),
        ("sdxl", 8, CHECKPOINTED, 16.0),
        ("sd3", 4, {}, 70.0),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_was_measured_of_the_libraries_forwards(
    family: FamilyName, batch: int, changes: dict[str, Any], measured_gib: float
) -> None:
    found = estimated(family, batch=batch, remade=False, **{**NOTHING_LEFT, **changes})
    was_float32 = family == "sd" and found.reference > 0  # in those runs the reference was, which takes as much again
    assert found.peak_gib + was_float32 * found.reference == pytest.approx(measured_gib, rel=0.1)


@pytest.mark.parametrize("changes", [{"is_half": False}, {}, FULL])
def test_activations_that_are_remade_take_less(changes: dict[str, Any]) -> None:
    own, libraries = (estimated("sd", batch=4, remade=remade, **changes).activations for remade in (True, False))
    assert 0.4 * libraries < own < 0.75 * libraries


@pytest.mark.parametrize(("family", "tflop"), [("sd", 0.80327), ("sdxl", 6.76124), ("sd3", 11.24957)])
def test_the_work_of_a_forward_is_what_torch_counts(family: FamilyName, tflop: float) -> None:
    model = published(family)
    assert model.resolution is not None
    counted = sum(layer.flops for layer in layers_of(model, family, model.resolution))
    assert counted / 1e12 == pytest.approx(tflop, rel=1e-5)  # by `torch.utils.flop_counter`, of the same networks


def test_each_component_is_what_it_is_made_of() -> None:
    full = estimated("sd", batch=4, **FULL)
    a_copy = 859_520_964 * 4 / 2**30
    assert full.gradients == pytest.approx(a_copy, rel=1e-3)
    assert full.reference == pytest.approx(a_copy / 2, rel=1e-3)  # as autocast rounds it
    assert full.optimizer == pytest.approx(2 * a_copy, rel=1e-3)
    lean = estimated("sd", batch=4, training={"optimizer": "adamw_8bit"}, **FULL)
    assert full.peak_gib - lean.peak_gib == pytest.approx(full.optimizer - lean.optimizer, abs=0.01)
    lora = estimated("sd", batch=4)
    assert lora.reference == 0.0


def test_a_reference_that_is_averaged_exactly_keeps_the_layers_that_are_adapted() -> None:
    moving = estimated("sd", batch=4, reference={"type": "ema"})
    factors = estimated("sd", batch=4, reference={"type": "ema", "ref_store": "factor_average"})
    assert moving.reference > 20 * factors.reference > 0


def test_what_is_used_now_and_then_is_counted_where_it_is_needed() -> None:
    vae, text = (4 * PARTS["sd"]["vae"] / 2**30, 2 * PARTS["sd"]["text_encoder"] / 2**30)
    leaving, staying = (estimated("sd", batch=4, **changes) for changes in ({}, NOTHING_LEFT))
    assert staying.peak_gib - leaving.peak_gib == pytest.approx(vae + text, abs=1e-3)
    assert (leaving.conditioning, staying.conditioning) == (0, pytest.approx(text, abs=1e-3))
    on_a_card, on_a_cpu = (
        decoding_bytes(published("sd"), 512, 8, on_a_card=on_a_card) / 2**30 for on_a_card in (True, False)
    )
    assert leaving.vae_decode - on_a_card == pytest.approx(vae, abs=1e-3)
    assert staying.vae_decode == pytest.approx(on_a_cpu, abs=1e-3)
    flipped = estimated("sd", batch=4, method={**PAIRS, "transform": {"horizontal_flip": True}})
    assert flipped.peak_gib - leaving.peak_gib == pytest.approx(vae, abs=1e-3)
    trained = estimated("sd", batch=4, adapter={"type": "lora", "text_encoder": {}})
    assert trained.conditioning > text


def test_accumulated_gradients_stand_beside_the_activations() -> None:
    once, several = (estimated("sd", batch=4, training={"gradient_accumulation_steps": n}, **FULL) for n in (1, 2))
    assert several.peak_gib - once.peak_gib == pytest.approx(once.gradients, abs=0.01)


SHARED: dict[str, Any] = {"resources": {"processes": 4, "strategy": "fsdp2"}}


def test_of_weights_in_shares_a_process_holds_its_own_and_the_blocks_that_are_brought_together() -> None:
    whole, shared = (estimated("sdxl", batch=4, **FULL, **changes) for changes in ({}, SHARED))
    for component in ("gradients", "optimizer"):
        assert getattr(shared, component) == pytest.approx(getattr(whole, component) / 4, abs=2e-3)
    assert shared.reference == pytest.approx(2 * whole.reference / 4, abs=2e-3)  # in shares it stays float32
    assert 0.25 * whole.weights < shared.weights < 0.4 * whole.weights
    assert shared.activations == whole.activations


WIDE = {"type": "lora", "rank": 256, "alpha": 256.0}


@pytest.mark.parametrize(
    ("changes", "is_sent_from_the_backward"),
    [
        ({}, False),
        ({"resources": {"strategy": "fsdp2"}}, False),
        ({"training": {"cuda_graphs": "off"}}, True),
        ({"training": {"gradient_checkpointing": True}}, True),
        ({"resources": {"device": "cpu"}}, True),
        ({"adapter": {**WIDE, "text_encoder": {}}}, True),
    ],
)
def test_gradients_are_there_from_the_start_where_ddp_sends_them_from_the_backward(
    changes: dict[str, Any], is_sent_from_the_backward: bool
) -> None:
    training = {"cuda_graphs": "auto", **changes.get("training", {})}
    resources = {"processes": 2, **changes.get("resources", {})}
    spec = JobSpec.model_validate(
        {"model": "a", "method": PAIRS, "adapter": WIDE, **changes, "training": training, "resources": resources}
    )
    assert gradients_in_buckets(spec.resolved("sd")) is is_sent_from_the_backward


def test_the_buckets_of_gradients_count_beside_the_activations() -> None:
    alone, two = (
        estimated("sd", batch=4, adapter=WIDE, resources={"device": "cpu", "processes": num}) for num in (1, 2)
    )
    assert two.gradients > 0.1
    assert two.peak_gib - alone.peak_gib == pytest.approx(two.gradients, abs=2e-3)


def test_an_adapter_is_whole_on_every_process() -> None:
    whole, shared = (estimated("sdxl", batch=4, **changes) for changes in ({}, SHARED))
    assert (shared.gradients, shared.optimizer) == (whole.gradients, whole.optimizer)
    assert shared.weights < 0.4 * whole.weights


def test_judges_are_there_from_the_start_each_where_it_is_named() -> None:
    clip_h = 986_109_441 * 4 / 2**30
    pick: dict[str, Any] = {"type": "pick_score", "model": {"type": "local", "path": "/judge"}}
    plain, judged = (
        estimated("sd", batch=4, method={**TAILORPO, "rewards": [reward]})
        for reward in ({"type": "colorfulness"}, pick)
    )
    assert (plain.judges, judged.judges) == (0.0, pytest.approx(clip_h, abs=1e-3))
    assert judged.peak_gib - plain.peak_gib == pytest.approx(clip_h, abs=2e-3)
    report = {"rewards": [pick], "prompt_following": {**pick, "type": "clip_score"}}
    both = estimated("sd", batch=4, evaluation=report)
    assert both.judges == pytest.approx((986_109_441 + 427_616_513) * 4 / 2**30, abs=1e-3)


def test_the_prediction_of_tailorpo_waits_beside_what_is_judged_and_more_where_a_winner_climbs() -> None:
    many: dict[str, Any] = {"resources": {"device": "cpu", "processes": 2}}
    kept, asked_anew = (estimated("sd", batch=8, method=TAILORPO, **changes) for changes in (NOTHING_LEFT, many))
    assert kept.peak_gib > asked_anew.peak_gib
    fixed, climbs = (
        estimated("sd", batch=8, method={**TAILORPO, "guidance": {"stop_network_grad": stopped}}, **NOTHING_LEFT)
        for stopped in (True, False)
    )
    assert kept.peak_gib < fixed.peak_gib < climbs.peak_gib
    assert estimated("sd", batch=8, method=D3PO).activations == pytest.approx(2 * kept.activations, rel=1e-3)
