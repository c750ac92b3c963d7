"""Preference pairs from the demo model's own samples, ranked by colourfulness.

For every training caption drawn, the most colourful of a few samples is `chosen` and the least
colourful `rejected`. `--label-noise` swaps a share of the pairs, as unsure annotators would;
`--shuffle-labels` swaps each with probability 1/2: the control, from which nothing can be learnt.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from alignment_core.rewards.colorfulness import Colorfulness
from demo.assets import ASSETS
from demo.captions import train_captions
from demo.sampling import draw_samples, load_pipeline

SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chosen", pa.binary(), nullable=False),
        pa.field("rejected", pa.binary(), nullable=False),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
    ]
)
COIN = 0.5


def png_bytes(image: Tensor) -> bytes:
    """An image [3, H, W] in [0, 1] as PNG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def draw_prompts(num_prompts: int, rng: np.random.Generator) -> list[str]:
    """Training captions in random order; all of them once before any comes again."""
    captions = [caption.text for caption in train_captions()]
    rounds = -(-num_prompts // len(captions))
    order = np.concatenate([rng.permutation(len(captions)) for _ in range(rounds)])
    return [captions[index] for index in order[:num_prompts]]


def ranked_pair(images: Tensor, scores: Tensor, prompt: str, swapped: bool) -> dict[str, object]:
    """A canonical row from one prompt's samples: best against worst, or the other way round."""
    chosen, rejected = int(scores.argmax()), int(scores.argmin())
    score = float(scores[chosen] - scores[rejected])
    if swapped:
        chosen, rejected = rejected, chosen
    return {
        "prompt": prompt,
        "chosen": png_bytes(images[chosen]),
        "rejected": png_bytes(images[rejected]),
        "label": 1.0,
        "score": score,
        "group_id": prompt,
    }


def make_pairs(
    pipeline: StableDiffusionPipeline,
    num_prompts: int,
    samples_per_prompt: int,
    seed: int,
    swap_probability: float = 0.0,
) -> pa.Table:
    """`num_prompts` canonical rows; `score` is the gap in colourfulness, whichever is chosen."""
    rng = np.random.default_rng(seed)
    prompts = draw_prompts(num_prompts, rng)
    swapped = rng.random(num_prompts) < swap_probability
    repeated = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    images = draw_samples(pipeline, repeated, seed)
    scores = Colorfulness()(images, repeated)
    rows = [
        ranked_pair(group, group_scores, prompt, bool(swap))
        for group, group_scores, prompt, swap in zip(
            images.split(samples_per_prompt),
            scores.split(samples_per_prompt),
            prompts,
            swapped,
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def main(argv: list[str] | None = None) -> None:
    """Writes a parquet file of pairs; the same arguments give the same bytes."""
    parser = argparse.ArgumentParser(prog="python -m demo.pairs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--model", type=Path, default=ASSETS / "model")
    parser.add_argument("--prompts", type=int, default=192, help="number of rows")
    parser.add_argument("--samples", type=int, default=4, help="samples a prompt")
    parser.add_argument("--seed", type=int, default=0)
    swap = parser.add_mutually_exclusive_group()
    swap.add_argument("--label-noise", type=float, default=0.0, help="share of pairs swapped")
    swap.add_argument("--shuffle-labels", action="store_true", help="swap each pair by a coin")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    table = make_pairs(
        load_pipeline(arguments.model),
        arguments.prompts,
        arguments.samples,
        arguments.seed,
        COIN if arguments.shuffle_labels else arguments.label_noise,
    )
    pq.write_table(table, arguments.out)
    print(f"{table.num_rows} pairs in {arguments.out}, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
