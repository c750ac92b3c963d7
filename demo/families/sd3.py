"""Stable Diffusion 3 in miniature: a joint transformer, a straight path, velocity prediction, 0.91 M parameters.

There is no third text encoder. diffusers puts zeros in the place of its tokens, 256 of them unless
told otherwise, which all take part in the attention. The model is trained with few of them and, now
and then, with all, so that it draws the same whatever `max_sequence_length` a caller asks for.
"""

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.nn import functional as F

from demo.denoiser import CAPTION_DROPOUT, LatentDataset
from demo.families.captions import HIDDEN_SIZE, encode, new_projected_encoder
from demo.text import MAX_TOKENS, new_tokenizer

WIDTH, NUM_HEADS, NUM_LAYERS = 64, 4, 4
DEFAULT_SEQUENCE_LENGTH = 256
LONG_SEQUENCES = 0.1  # share of the batches with the default number of empty tokens


def new_transformer() -> SD3Transformer2DModel:
    """An untrained transformer of 0.59 M parameters that reads a latent as 4x4 patches of 2x2."""
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=NUM_LAYERS,
        attention_head_dim=WIDTH // NUM_HEADS,
        num_attention_heads=NUM_HEADS,
        joint_attention_dim=2 * HIDDEN_SIZE,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * HIDDEN_SIZE,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def new_pipeline(vae: AutoencoderKL, seed: int) -> StableDiffusion3Pipeline:
    """A whole pipeline around `vae`, its transformer and text encoders untrained."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    return StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=new_projected_encoder(tokenizer),
        text_encoder_2=new_projected_encoder(tokenizer),
        text_encoder_3=None,  # pyright: ignore[reportArgumentType]
        tokenizer=tokenizer,
        tokenizer_2=new_tokenizer(),
        tokenizer_3=None,  # pyright: ignore[reportArgumentType]
        transformer=new_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
    )


def loss_on_latents(
    pipeline: StableDiffusion3Pipeline, data: LatentDataset, batch_size: int = 32
) -> Callable[[torch.Generator], Tensor]:
    """`mean ||(eps - x_0) - v||^2` at logit-normal noise levels, of a batch that the generator draws from `data`."""
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.latents), (batch_size,), generator=generator)
        dropped = torch.rand(batch_size, 1, generator=generator) < CAPTION_DROPOUT
        captions = encode(encoders, torch.where(dropped, data.empty_ids, data.token_ids[rows]))
        is_long = torch.rand((), generator=generator) < LONG_SEQUENCES
        num_empty = DEFAULT_SEQUENCE_LENGTH if is_long else MAX_TOKENS
        x_0, sigma = data.latents[rows], torch.randn(batch_size, generator=generator).sigmoid()
        eps = torch.randn(x_0.shape, generator=generator)
        weight = sigma[:, None, None, None]
        v = pipeline.transformer(
            (1 - weight) * x_0 + weight * eps,
            encoder_hidden_states=F.pad(captions.context, (0, 0, 0, num_empty)),
            pooled_projections=captions.pooled,
            timestep=sigma * pipeline.scheduler.config.num_train_timesteps,
        ).sample
        return F.mse_loss(v, eps - x_0)

    return loss_of_batch
