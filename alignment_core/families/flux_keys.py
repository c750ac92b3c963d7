"""FLUX.1: what other tools call its weights.

ComfyUI and diffusers read a LoRA by diffusers' own names, with `transformer.` before them; of kohya's names and of the single
file's, where q, k and v are joined, there is no table here.
"""

from alignment_core.families.keys import FamilyKeys

FLUX = FamilyKeys(
    family="flux",
    components=("transformer", "vae", "text_encoder", "text_encoder_2"),
    to_kohya=None,
    to_original=None,
    architecture=lambda config: "flux-1-dev" if config.get("guidance_embeds") else "flux-1-schnell",
    base_version=lambda _: "flux1",
)
