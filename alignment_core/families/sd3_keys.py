"""Stable Diffusion 3: what other tools call its weights.

ComfyUI and diffusers read a LoRA by diffusers' own names, with `transformer.` before them; of kohya's names and of the single
file's there is no table here.
"""

from alignment_core.families.keys import FamilyKeys

SD3 = FamilyKeys(
    family="sd3",
    components=("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    to_kohya=None,
    to_original=None,
    architecture=lambda config: "stable-diffusion-v3.5" if config.get("qk_norm") else "stable-diffusion-v3",
    base_version=lambda config: "sd3.5" if config.get("qk_norm") else "sd3",
)
