"""A U-Net's blocks by their formulas: what diffusers' do at their defaults, without the rest.

Those serve many models. At every call they read the signature of their attention, divide by factors of 1, drop out nothing and ask
for conditions that are not there, and small feature maps make that a tenth of a step. The operations that are left are the same, and
so are the numbers, to the bit. A block that is more than its formula, or is asked for more, stays diffusers'.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


def simplify(network: nn.Module) -> None:
    """Give the blocks of a network that are no more than their formulas the forwards of this module."""
    for block in network.modules():
        forward = _forward_of(block)
        if forward is not None:
            block.forward = MethodType(forward, block)


def _forward_of(block: nn.Module) -> Callable[..., Tensor] | None:
    match block:
        case ResnetBlock2D() if _is_plain_residual(block):
            return residual
        case BasicTransformerBlock() if _is_plain_transformer(block):
            return transformer
        case Attention() if _is_plain_attention(block):
            return attention
        case FeedForward() if len(block.net) == 3 and _drops_nothing(block.net[1]):
            return feed_forward
        case _:
            return None


def residual(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None) -> Tensor:
    """x + conv(silu(norm(conv(silu(norm(x))) + time)))."""
    h = block.conv1(block.nonlinearity(block.norm1(x)))
    if temb is not None and block.time_emb_proj is not None:
        h = h + block.time_emb_proj(block.nonlinearity(temb))[:, :, None, None]
    h = block.conv2(block.nonlinearity(block.norm2(h)))
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + h


def transformer(
    block: BasicTransformerBlock,
    x: Tensor,
    attention_mask: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    timestep: Tensor | None = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    *others: Any,
    **named: Any,
) -> Tensor:
    """Attention to itself, attention to the text, feed forward; each behind its norm and added to what came."""
    masks = (attention_mask, encoder_attention_mask)
    if any(mask is not None for mask in masks) or cross_attention_kwargs or block._chunk_size is not None:
        asked = (attention_mask, encoder_hidden_states, encoder_attention_mask, timestep, cross_attention_kwargs)
        return BasicTransformerBlock.forward(block, x, *asked, *others, **named)  # pyright: ignore[reportArgumentType]
    assert block.attn2 is not None, "it attends to the text"
    assert block.norm2 is not None, "and behind a norm"
    assert block.norm3 is not None, "and behind a norm"
    x = block.attn1(block.norm1(x)) + x
    x = block.attn2(block.norm2(x), encoder_hidden_states) + x
    return block.ff(block.norm3(x)) + x


def attention(
    block: Attention,
    x: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **named: Any,
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V by head."""
    if attention_mask is not None or named or type(block.processor) is not AttnProcessor2_0:
        return Attention.forward(block, x, encoder_hidden_states, attention_mask, **named)
    assert block.to_k is not None, "it reads keys and values of its own"
    assert block.to_v is not None, "it reads keys and values of its own"
    assert block.to_out is not None, "it ends in a projection"
    seen = x if encoder_hidden_states is None else encoder_hidden_states
    q, k, v = block.to_q(x), block.to_k(seen), block.to_v(seen)
    heads = (len(x), -1, block.heads, k.shape[-1] // block.heads)
    found = F.scaled_dot_product_attention(*(projected.view(heads).transpose(1, 2) for projected in (q, k, v)))
    return next(iter(block.to_out))(found.transpose(1, 2).reshape(*x.shape[:2], -1))


def feed_forward(block: FeedForward, x: Tensor) -> Tensor:
    """W activation(x)."""
    activation, _, last = block.net
    return last(activation(x))


# --- what is no more than its formula ------------------------------------------------------------------------------


def _is_plain_residual(block: ResnetBlock2D) -> bool:
    return (
        type(block) is ResnetBlock2D
        and block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.output_scale_factor == 1.0
        and _drops_nothing(block.dropout)
    )


def _is_plain_transformer(block: BasicTransformerBlock) -> bool:
    return (
        type(block) is BasicTransformerBlock
        and block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block.attn2 is not None
        and block.norm2 is not None
        and block.norm3 is not None
        and not block.only_cross_attention
        and "fuser" not in dict(block.named_children())
    )


def _is_plain_attention(block: Attention) -> bool:
    parts = (block.spatial_norm, block.group_norm, block.norm_cross, block.norm_q, block.norm_k)
    return (
        type(block) is Attention
        and type(block.processor) is AttnProcessor2_0
        and all(part is None for part in parts)
        and not block.residual_connection
        and block.rescale_output_factor == 1.0
        and block.to_k is not None
        and block.to_v is not None
        and block.to_out is not None
        and len(block.to_out) == 2
        and _drops_nothing(block.to_out[1])
    )


def _drops_nothing(dropout: nn.Module) -> bool:
    return isinstance(dropout, nn.Dropout) and dropout.p == 0.0
