"""SDXL in miniature: two text encoders, pooled embedding, time ids, epsilon prediction, 0.99 M parameters."""

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from demo.denoiser import CAPTION_DROPOUT, MIN_SNR_GAMMA, LatentDataset
from demo.families.captions import HIDDEN_SIZE, encode, new_encoder, new_projected_encoder
from demo.renderer import IMAGE_SIZE
from demo.text import new_tokenizer

TIME_ID_SIZE = 8
# original height and width, top and left of the crop, target height and width
TIME_IDS = (IMAGE_SIZE, IMAGE_SIZE, 0, 0, IMAGE_SIZE, IMAGE_SIZE)


def new_unet() -> UNet2DConditionModel:
    """An untrained U-Net of 0.67 M parameters: no attention in its first block, as in SDXL's."""
    unet = UNet2DConditionModel.from_config(
        {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "block_out_channels": [32, 48],
            "layers_per_block": 1,
            "cross_attention_dim": 2 * HIDDEN_SIZE,
            # diffusers reads this as the number of heads: 4 and 6 of 8 dimensions each.
            "attention_head_dim": [4, 6],
            "norm_num_groups": 4,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_ID_SIZE,
            "projection_class_embeddings_input_dim": len(TIME_IDS) * TIME_ID_SIZE + HIDDEN_SIZE,
        }
    )
    assert isinstance(unet, UNet2DConditionModel)
    return unet


def new_scheduler() -> DDIMScheduler:
    """SDXL's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="epsilon",
    )


def new_pipeline(vae: AutoencoderKL, seed: int) -> StableDiffusionXLPipeline:
    """A whole pipeline around `vae`, its U-Net and text encoders untrained."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=new_encoder(tokenizer),
        text_encoder_2=new_projected_encoder(tokenizer),
        tokenizer=tokenizer,
        tokenizer_2=new_tokenizer(),
        unet=new_unet(),
        scheduler=new_scheduler(),  # pyright: ignore[reportArgumentType]
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def loss_on_latents(
    pipeline: StableDiffusionXLPipeline, data: LatentDataset, batch_size: int = 32
) -> Callable[[torch.Generator], Tensor]:
    """The min-SNR loss of a batch that the generator draws from `data`; a dropped caption is zeros, as in SDXL."""
    abar = pipeline.scheduler.alphas_cumprod
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
    time_ids = torch.tensor([TIME_IDS] * batch_size, dtype=torch.float32)

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.latents), (batch_size,), generator=generator)
        kept = (torch.rand(batch_size, 1, generator=generator) >= CAPTION_DROPOUT).float()
        captions = encode(encoders, data.token_ids[rows])
        t = torch.randint(len(abar), (batch_size,), generator=generator)
        x_0, abar_t = data.latents[rows], abar[t, None, None, None]
        eps = torch.randn(x_0.shape, generator=generator)
        eps_hat = pipeline.unet(
            abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * eps,
            t,
            encoder_hidden_states=captions.context * kept[:, None],
            added_cond_kwargs={"text_embeds": captions.pooled * kept, "time_ids": time_ids},
        ).sample
        snr = abar[t] / (1 - abar[t])
        per_example = F.mse_loss(eps_hat, eps, reduction="none").mean((1, 2, 3))
        return (per_example * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()

    return loss_of_batch
