"""The policy's weights of the SD family on disk, in the two forms that users' tools read."""

from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from alignment_core.actors import ADAPTER, Actors
from alignment_core.errors import CheckpointError
from alignment_core.families.sd import StableDiffusion

LORA_FILE = "pytorch_lora_weights.safetensors"
PIPELINE_FOLDER = "pipeline"


def save_policy(family: StableDiffusion, actors: Actors, folder: Path) -> None:
    """Write the LoRA as `pipeline.load_lora_weights(folder)` reads it, or a whole diffusers folder under `pipeline/`."""
    if actors.kind == "full":
        family.pipeline(actors.denoiser).save_pretrained(folder / PIPELINE_FOLDER, safe_serialization=True)
        return
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(actors.denoiser, adapter_name=ADAPTER))
    config = actors.denoiser.peft_config[ADAPTER].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers,
        weight_name=LORA_FILE,
        safe_serialization=True,
        # Rank and alpha travel in the file's header: without them every loader assumes alpha = rank.
        unet_lora_adapter_metadata={**config, "target_modules": sorted(config["target_modules"])},
    )


def load_policy(actors: Actors, folder: Path) -> None:
    """Put the weights that `save_policy` wrote back into the policy, exactly."""
    if actors.kind == "full":
        saved = UNet2DConditionModel.from_pretrained(
            folder / PIPELINE_FOLDER, subfolder="unet", use_safetensors=True, local_files_only=True
        )
        actors.denoiser.load_state_dict(saved.state_dict())
        return
    layers = {key.removeprefix("unet."): value for key, value in load_file(folder / LORA_FILE).items()}
    outcome = set_peft_model_state_dict(actors.denoiser, convert_unet_state_dict_to_peft(layers), adapter_name=ADAPTER)
    if outcome is not None and outcome.unexpected_keys:
        raise CheckpointError(
            "checkpoint_altered", f"{folder / LORA_FILE}: unexpected weight {outcome.unexpected_keys[0]!r}"
        )
