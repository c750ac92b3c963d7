"""How both families read a caption: two CLIP text encoders side by side, and a pooled embedding."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from demo.text import spread_token_embeddings, text_config

HIDDEN_SIZE = 32


def new_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of 0.04 M parameters, initialised by the global generator."""
    encoder = CLIPTextModel(text_config(tokenizer, HIDDEN_SIZE))
    spread_token_embeddings(encoder)
    return encoder


def new_projected_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """The same with a projection of the end token: the pooled embedding."""
    encoder = CLIPTextModelWithProjection(text_config(tokenizer, HIDDEN_SIZE))
    spread_token_embeddings(encoder)
    return encoder


@dataclass(frozen=True)
class Captions:
    """A batch of captions as a denoiser reads them."""

    context: Tensor  # [B, S, D]
    pooled: Tensor  # [B, P]


def encode(encoders: list[CLIPTextModel | CLIPTextModelWithProjection], token_ids: Tensor) -> Captions:
    """The states before each encoder's last layer, side by side, and the pooled embeddings of those that project."""
    outputs = [encoder(token_ids, output_hidden_states=True) for encoder in encoders]
    pooled = [output.text_embeds for output in outputs if "text_embeds" in output]
    return Captions(
        torch.cat([output.hidden_states[-2] for output in outputs], dim=-1),
        torch.cat(pooled, dim=-1),
    )
