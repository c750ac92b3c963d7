"""Which family's names a model folder's weights have."""

from alignment_core.errors import ModelError
from alignment_core.families.flux_keys import FLUX
from alignment_core.families.keys import FamilyKeys
from alignment_core.families.sd3_keys import SD3
from alignment_core.families.sd_keys import SD
from alignment_core.families.sdxl_keys import SDXL
from alignment_core.families.source import ModelFolder, read_json


def keys_of(folder: ModelFolder) -> FamilyKeys:
    """The table for the pipeline that the folder names; raises `ModelError` for one that there is none for."""
    match read_json(folder.path / "model_index.json").get("_class_name"):
        case "StableDiffusionPipeline":
            return SD
        case "StableDiffusionXLPipeline":
            return SDXL
        case "StableDiffusion3Pipeline":
            return SD3
        case "FluxPipeline":
            return FLUX
        case other:
            raise ModelError("export_unsupported", f"there are no tables for the weights of a {other}")
