"""Blocks by their formulas: the same numbers as diffusers' to the bit, and diffusers' own where a block is more."""

import copy

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from alignment_core.actors.plain_blocks import simplify

torch.set_num_threads(1)


def both(block: nn.Module) -> tuple[nn.Module, nn.Module]:
    own = copy.deepcopy(block.eval())
    simplify(own)
    return own, block


def outcome(block: nn.Module, *inputs: Tensor, **named: object) -> list[Tensor]:
    leaves = [one.clone().requires_grad_() for one in inputs]
    y = block(*leaves, **named)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [*leaves, *block.parameters()])]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def residual(out: int = 8, **options: object) -> ResnetBlock2D:
    return ResnetBlock2D(in_channels=8, out_channels=out, temb_channels=6, groups=2, **options)  # pyright: ignore


def transformer(**options: object) -> BasicTransformerBlock:
    return BasicTransformerBlock(
        8,
        2,
        4,
        **{"cross_attention_dim": 5, "activation_fn": "geglu", **options},  # pyright: ignore
    )


IMAGE, TIME, PLACES, TEXT = torch.randn(2, 8, 6, 6), torch.randn(2, 6), torch.randn(2, 9, 8), torch.randn(2, 3, 5)


@pytest.mark.parametrize("out", [8, 12], ids=["as wide", "wider"])
def test_a_residual_block_has_the_numbers_of_diffusers(out: int) -> None:
    own, block = both(residual(out))
    assert "forward" in own.__dict__
    assert_equal(outcome(own, IMAGE, TIME), outcome(block, IMAGE, TIME))


def test_a_transformer_block_has_the_numbers_of_diffusers() -> None:
    own, block = both(transformer())
    assert {
        "forward"
    } <= own.__dict__.keys() & own.attn1.__dict__.keys() & own.attn2.__dict__.keys() & own.ff.__dict__.keys()
    text = {"encoder_hidden_states": TEXT}
    assert_equal(outcome(own, PLACES, **text), outcome(block, PLACES, **text))


def test_with_a_mask_a_transformer_block_is_diffusers() -> None:
    own, block = both(transformer())
    masked = {"encoder_hidden_states": TEXT, "encoder_attention_mask": torch.tensor([[[0.0, 0.0, -1e4]]] * 2)}
    found = outcome(own, PLACES, **masked)
    assert_equal(found, outcome(block, PLACES, **masked))
    assert not torch.equal(found[0], own(PLACES, encoder_hidden_states=TEXT))


@pytest.mark.parametrize(
    "block",
    [
        residual(output_scale_factor=2.0),
        residual(dropout=0.1),
        residual(time_embedding_norm="scale_shift"),
        residual(up=True),
        transformer(dropout=0.1),
        transformer(norm_type="ada_norm", num_embeds_ada_norm=3),
    ],
    ids=["scaled", "dropped out", "scale and shift", "upsampling", "dropped out attention", "adaptive norm"],
)
def test_a_block_that_is_more_than_its_formula_stays_diffusers(block: nn.Module) -> None:
    own, _ = both(block)
    assert "forward" not in own.__dict__ or all("forward" not in part.__dict__ for part in (own.attn1, own.ff))
