"""What decoding takes, counted by layers, against the tensors that live while diffusers' autoencoders decode."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from alignment_core.costs.vae import PUBLISHED, climbing_bytes, decoder_numbers, decoding_bytes
from alignment_core.families.autoencoder import decoded
from alignment_core.model_files import ModelReport, layers_of
from benchmarks.living_bytes import LivingBytes

SIDE, IMAGES = 16, 2
SMALL: dict[str, Any] = {"block_out_channels": (16, 32), "norm_num_groups": 8, "mid_block_add_attention": False}
KINDS: dict[str, dict[str, Any]] = {
    "two levels": SMALL,
    "three levels": {**SMALL, "block_out_channels": (16, 32, 64)},
    "two layers a block": {**SMALL, "block_out_channels": (16, 32, 32), "layers_per_block": 2},
    "wide at the end": {**SMALL, "block_out_channels": (32, 32)},
    "attention": {**SMALL, "block_out_channels": (8, 32), "mid_block_add_attention": True},
}


def autoencoder(channels: tuple[int, ...], **config: Any) -> AutoencoderKL:
    kinds = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
    blocks = {name: (kind,) * len(channels) for name, kind in kinds.items()}
    return AutoencoderKL(block_out_channels=channels, **blocks, **config).requires_grad_(False).eval()


def report_of(vae: AutoencoderKL) -> ModelReport:
    shapes = {name: list(one.shape) for name, one in vae.named_parameters() if name.startswith("decoder.")}
    stride = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return ModelReport(decoder_layers=dict(layers_of(shapes)), latent_stride=stride)


def peak_of(turn: Callable[[], object]) -> int:
    """Beside what was there before."""
    gc.collect()
    with LivingBytes() as meter:
        for one in gc.get_objects():
            if issubclass(type(one), Tensor):  # `isinstance` would ask objects that warn
                meter.count(one)
        before = meter.peak = meter.now
        turn()
    return meter.peak - before


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_takes_what_its_layers_say(kind: str) -> None:
    config = KINDS[kind]
    vae = autoencoder(config["block_out_channels"], **{k: v for k, v in config.items() if k != "block_out_channels"})
    report, latents = report_of(vae), torch.randn(IMAGES, 4, SIDE, SIDE)

    def decode() -> None:
        with torch.no_grad():
            decoded(vae, latents)

    def there_and_back() -> None:
        z = latents.clone().requires_grad_()
        torch.autograd.grad(decoded(vae, z).sum(), z)

    decode()  # what a first time leaves
    asked = (report, SIDE * report.latent_stride, IMAGES)
    assert decoding_bytes(*asked, on_a_card=False) == pytest.approx(peak_of(decode), rel=0.06)
    assert climbing_bytes(*asked, on_a_card=False) == pytest.approx(peak_of(there_and_back), rel=0.06)


def test_the_published_decoder_is_what_its_layers_say() -> None:
    with torch.device("meta"):
        vae = autoencoder((128, 256, 512, 512), layers_per_block=2, latent_channels=4)
    report = report_of(vae)
    assert report.decoder_layers is not None
    assert decoder_numbers(report.decoder_layers) == PUBLISHED
    unread = ModelReport(vae_channels=128)
    for count in (decoding_bytes, climbing_bytes):
        for on_a_card in (True, False):
            assert count(unread, 512, 8, on_a_card=on_a_card) == count(report, 512, 8, on_a_card=on_a_card)
    assert decoding_bytes(report, 512, 1, on_a_card=True) == 2**31  # as an H100 took: 0.5 MiB a latent place
    assert climbing_bytes(report, 512, 1, on_a_card=False) / 64**2 == pytest.approx(1.49e6, rel=0.001)
    assert decoding_bytes(report, 512, 8, on_a_card=True) == 2**32  # two at once
