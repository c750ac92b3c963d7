"""Two tiny trained models of other families: SDXL and Stable Diffusion 3."""

FAMILIES = ("sdxl", "sd3")
