"""What encoding and decoding images takes, decoding counted by the decoder's layers: the numbers that live while it works.

Without a gradient that is its widest moment. A residual block holds what comes into it (a channels) until it has made what goes out of it (b):
a norm, a SiLU and a convolution beside it one after the other, and at the end the sum, its quotient, and the shortcut where there is
one. With a gradient it is what autograd keeps of diffusers' `AutoencoderKL`, all of whose weights are frozen: the input of each norm,
SiLU and convolution.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignment_core.model_files import ModelReport

FLOAT32 = 4  # its weights are that whatever the run's precision
PLACES_DECODED, PLACES_ENCODED = 2 * 64 * 64, 8 * 64 * 64  # at most, unless it is one image: `families/autoencoder.py`
# What a decoder takes on a card, times its tensors, since its convolutions have workspaces: an H100 took 0.5 MiB a latent place of SD's VAE
# at 512 pixels, of which 0.19 are tensors.
ON_A_CARD = 8 / 3
ENCODED = 2**17 / 128  # bytes a latent place while it is encoded there, a channel of the VAE where it has every pixel
Shape = Sequence[int]
_PART = re.compile(
    r"decoder\.(mid_block|up_blocks\.(\d+))\.(resnets\.\d+|upsamplers\.0)\.(conv1|conv2|conv_shortcut|conv)$"
)
_ASKS = re.compile(r"decoder\.mid_block\.attentions\.0\.(to_q|query)$")
RGB = 3


@dataclass(frozen=True)
class DecoderNumbers:
    """Numbers a latent place."""

    at_once: int
    """That live in the widest moment of a forward without a gradient."""
    kept: int
    """That a forward keeps for the way back to the latent."""
    last: int
    """That come into the last layer: so large is the first gradient, which stands beside all that is kept."""

    @property
    def with_gradient(self) -> int:
        """At the most, there and back."""
        return self.kept + self.last


PUBLISHED = DecoderNumbers(at_once=49152, kept=364_224, last=8192)  # of SD's VAE, whose 128 channels most have


def decoding_bytes(model: ModelReport, side_pixels: int, images: int, *, on_a_card: bool) -> float:
    """While the VAE decodes a slice of so many images, without a gradient."""
    return _sliced(model, side_pixels, images) * _numbers(model).at_once * FLOAT32 * (ON_A_CARD if on_a_card else 1)


def climbing_bytes(model: ModelReport, side_pixels: int, images: int, *, on_a_card: bool) -> float:
    """The same with a gradient that goes back to the latents; workspaces as without."""
    numbers = _numbers(model)
    each = numbers.with_gradient + (numbers.at_once * (ON_A_CARD - 1) if on_a_card else 0)
    return _sliced(model, side_pixels, images) * each * FLOAT32


def encoding_bytes(model: ModelReport, side_pixels: int, images: int) -> float:
    """While the VAE encodes a slice of so many images."""
    places = _places(model, side_pixels)
    sliced = max(1, min(images, PLACES_ENCODED // places)) * places
    return ENCODED * (model.vae_channels or 128) * (model.latent_stride / 8) ** 2 * sliced


def _places(model: ModelReport, side_pixels: int) -> int:
    return (side_pixels // model.latent_stride) ** 2


def _sliced(model: ModelReport, side_pixels: int, images: int) -> int:
    """Latent places that are decoded at once."""
    places = _places(model, side_pixels)
    return places * min(images, max(1, PLACES_DECODED // places))


def _numbers(model: ModelReport) -> DecoderNumbers:
    """Of a decoder that nobody has read, those of SD's with its channels."""
    if model.decoder_layers is not None:
        return decoder_numbers(model.decoder_layers)
    share = (model.vae_channels or 128) / 128 * (model.latent_stride / 8) ** 2
    return DecoderNumbers(*(round(share * one) for one in (PUBLISHED.at_once, PUBLISHED.kept, PUBLISHED.last)))


def decoder_numbers(layers: Mapping[str, Shape]) -> DecoderNumbers:
    """Of a decoder's convolutions and linear layers by name, with the shapes of their weights."""
    parts: list[tuple[int, int]] = []
    blocks: dict[tuple[int, str], dict[str, dict[str, Shape]]] = defaultdict(lambda: defaultdict(dict))
    for name, shape in layers.items():
        if (found := _PART.match(name)) is not None:
            blocks[int(found[2] or 0), found[1]][found[3]][found[4]] = shape
        elif _ASKS.match(name):
            parts.append(
                (6 * shape[0], 5 * shape[0])
            )  # of the norm; queries, keys, values and what the last layer reads
    for (level, _), block in blocks.items():
        parts += [(at_once * 4**level, kept * 4**level) for at_once, kept in _of_block(block)]
    _, last = layers.get("decoder.conv_out", (0, 0))[:2]
    places = 4 ** max((level for level, _ in blocks), default=0)
    parts.append((2 * last * places, (3 * last + RGB) * places))  # norm, SiLU, convolution; pixels that are clamped
    return DecoderNumbers(max(one for one, _ in parts), sum(kept for _, kept in parts), last * places)


def _of_block(block: Mapping[str, Mapping[str, Shape]]) -> Iterator[tuple[int, int]]:
    """At once, and kept: of each part of a block, in order; what came into the block is there until its end."""
    came = 0
    for _, part in sorted(block.items()):
        if (up := part.get("conv")) is not None:  # makes four places of one
            out, into, *_ = up
            yield came + into + 4 * (into + out), 4 * into
        elif (first := part.get("conv1")) is not None:
            out, into, *_ = first
            summed = into + (4 if "conv_shortcut" in part else 3) * out
            yield came + max(3 * into, 2 * into + out, into + 2 * out, summed), 3 * (into + out)
            came = came or into
