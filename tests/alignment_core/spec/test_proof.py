"""The spec of an evaluation: who may compete, and what is said where something is wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from alignment_core.spec import LocalLora, LocalSource, ProofSpec
from alignment_core.spec.mistakes import in_sentences
from alignment_core.spec.places import Sources, localize
from alignment_core.spec.proof import LocalDenoiser

WEIGHTS, CHECKPOINT = "wts_" + "0" * 26, "ckpt_" + "0" * 26
SPEC: dict[str, Any] = {
    "contenders": [{"name": "base", "model": "sd15"}, {"name": "styled", "model": "sd15", "lora": WEIGHTS}],
    "prompts": ["a red circle"],
    "rewards": ["brightness"],
}


def test_the_first_contender_is_the_anchor_unless_another_is_named() -> None:
    assert ProofSpec.model_validate(SPEC).anchor_name == "base"
    assert ProofSpec.model_validate({**SPEC, "anchor": "styled"}).anchor_name == "styled"
    plain, named = ProofSpec.model_validate(SPEC), ProofSpec.model_validate({**SPEC, "anchor": "base"})
    assert plain.sha256() == named.sha256()


def test_the_hash_is_that_of_what_numbers_follow_from() -> None:
    plain = ProofSpec.model_validate(SPEC).sha256()
    for machine in ({"resources": {"processes": 4}}, {"sampling": {"batch_size": 2}}):
        assert ProofSpec.model_validate({**SPEC, **machine}).sha256() == plain
    for other in ({"seed": 1}, {"sampling": {"guidance_scale": 7.5}}, {"prompts": ["a blue square"]}):
        assert ProofSpec.model_validate({**SPEC, **other}).sha256() != plain


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"contenders": SPEC["contenders"][:1]}, "/contenders"),
        ({"contenders": [SPEC["contenders"][0]] * 2}, "/contenders/1/name: two contenders are called base"),
        ({"anchor": "other"}, "/anchor: the anchor 'other' is none of the contenders: base, styled"),
        ({"rewards": []}, "/rewards"),
        ({"rewards": ["brightness", "brightness"]}, "/rewards"),
        (
            {"contenders": [*SPEC["contenders"], {"name": "odd", "model": "sd15", "strength": 0.5}]},
            "/contenders/2/strength: strength is that of a LoRA, and there is none",
        ),
        (
            {"contenders": [*SPEC["contenders"], {"name": "odd", "model": "sd15", "denoiser": "unet"}]},
            "/contenders/2/denoiser",
        ),
    ],
)
def test_a_mistake_is_told_at_its_field(change: dict[str, Any], told: str) -> None:
    given = {**SPEC, **change}
    with pytest.raises(ValidationError) as raised:
        ProofSpec.model_validate(given)
    assert told in in_sentences(raised.value, given, ProofSpec)


def test_names_are_replaced_by_their_places() -> None:
    contenders = [
        *SPEC["contenders"],
        {"name": "unet", "model": "sd15", "denoiser": WEIGHTS},
        {"name": "full", "model": CHECKPOINT, "lora": CHECKPOINT},
    ]
    sources = Sources(
        models={"sd15": LocalSource(path="/models/sd15")},
        weights={WEIGHTS: LocalLora(path="/weights.safetensors")},
        models_of_checkpoints={CHECKPOINT: LocalSource(path="/pipeline")},
        loras_of_checkpoints={CHECKPOINT: LocalLora(path="/lora.safetensors")},
    )
    here = localize(ProofSpec.model_validate({**SPEC, "contenders": contenders}), sources)
    base, styled, unet, full = here.contenders
    assert base.model == LocalSource(path="/models/sd15")
    assert styled.lora == LocalLora(path="/weights.safetensors")
    assert unet.denoiser == LocalDenoiser(path="/weights.safetensors")
    assert (full.model, full.lora) == (LocalSource(path="/pipeline"), LocalLora(path="/lora.safetensors"))
