"""Two tiny trained models of other families: SDXL and Stable Diffusion 3, and their alignment."""

FAMILIES = ("sdxl", "sd3")
