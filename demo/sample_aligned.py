"""Load an aligned checkpoint the way any user of diffusers would, and draw one image.

    python -m demo.sample_aligned --base demo/assets/model --aligned build/demo/aligned --prompt "..." --output a.png

Nothing of Attune is imported: what was downloaded is in formats that diffusers reads by itself.
"""

import argparse
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

NUM_INFERENCE_STEPS = 12
GUIDANCE_SCALE = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of the model that was aligned")
    parser.add_argument("--aligned", type=Path, required=True, help="folder of the downloaded checkpoint")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--output", type=Path, required=True, help="the image, PNG")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pipeline = load(arguments.base, arguments.aligned)
    image = pipeline(
        arguments.prompt,
        num_inference_steps=NUM_INFERENCE_STEPS,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator().manual_seed(arguments.seed),
    ).images[0]  # pyright: ignore[reportAttributeAccessIssue]
    image.save(arguments.output)


def load(base: Path, aligned: Path) -> StableDiffusionPipeline:
    """The base with the aligned LoRA on it; a full fine-tune is a pipeline of its own."""
    if (aligned / "pipeline").is_dir():
        return StableDiffusionPipeline.from_pretrained(aligned / "pipeline", use_safetensors=True)
    pipeline = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True)
    pipeline.load_lora_weights(str(aligned))
    return pipeline


if __name__ == "__main__":
    main()
