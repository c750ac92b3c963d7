"""A tiny model of every family, as a diffusers folder: what the property suite and the matrix run over.

A new family joins with a line here.
"""

from collections.abc import Callable
from pathlib import Path

from tests.alignment_core.tiny import save_tiny_pipeline
from tests.alignment_core.tiny_flux import save_tiny_flux
from tests.alignment_core.tiny_sd2 import save_tiny_sd2
from tests.alignment_core.tiny_sd3 import save_tiny_sd3
from tests.alignment_core.tiny_sdxl import save_tiny_sdxl

TINY: dict[str, Callable[[Path], Path]] = {
    "sd": save_tiny_pipeline,
    "sd_v": lambda folder: save_tiny_pipeline(folder, prediction_type="v_prediction"),
    "sd_2": save_tiny_sd2,
    "sdxl": save_tiny_sdxl,
    "sdxl_v": lambda folder: save_tiny_sdxl(folder, prediction_type="v_prediction", zero_terminal_snr=True),
    "sd3": save_tiny_sd3,
    "sd3_t5": lambda folder: save_tiny_sd3(folder, with_t5=True),
    "flux": save_tiny_flux,
    "flux_schnell": lambda folder: save_tiny_flux(folder, is_dev=False),
}
