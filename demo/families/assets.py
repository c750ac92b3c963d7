"""Where the two trained models lie, how they are opened, and the proof that they are unchanged."""

from pathlib import Path

from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

from demo.assets import GATES_FILE, digests_of, read_gates, refuse_changes

FAMILY_ASSETS = Path(__file__).parent / "assets"

FamilyPipeline = StableDiffusionXLPipeline | StableDiffusion3Pipeline


def load_sdxl(folder: Path | str) -> StableDiffusionXLPipeline:
    """The SDXL-shaped pipeline in `folder`: local files and safetensors only, no progress bar."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_sd3(folder: Path | str) -> StableDiffusion3Pipeline:
    """The SD 3-shaped pipeline in `folder`, which has no third text encoder; otherwise as `load_sdxl`."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, local_files_only=True, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def family_digests(model: Path) -> dict[str, str]:
    """SHA-256 of every file of a model, by relative path."""
    return digests_of(model, [path for path in model.rglob("*") if path.is_file() and path.name != GATES_FILE])


def verify_family(model: Path) -> None:
    """Raises ValueError naming each file of the model that is missing, changed or unknown to its `gates.json`."""
    refuse_changes(read_gates(model)["files"], family_digests(model))
