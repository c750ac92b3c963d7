"""A tiny model of every family, as a diffusers folder: what the property suite and the matrix run over.

A new family joins with a line here.
"""

from collections.abc import Callable
from pathlib import Path

from tests.alignment_core.tiny import save_tiny_pipeline

TINY: dict[str, Callable[[Path], Path]] = {
    "sd": save_tiny_pipeline,
    "sd_v": lambda folder: save_tiny_pipeline(folder, prediction_type="v_prediction"),
}
