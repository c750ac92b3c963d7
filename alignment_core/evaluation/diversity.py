"""How much the images of one prompt differ: over-optimised models draw the same image for every seed."""

from itertools import combinations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray


def pairwise_distance(images: UInt8[ndarray, "seeds height width 3"]) -> float:
    """Mean over all pairs of the root mean square pixel difference, in [0, 1]; needs two images."""
    if len(images) < 2:
        raise ValueError("pairwise distance needs at least two images")
    return float(np.mean([_rms_distance(first, second) for first, second in combinations(images, 2)]))


def _rms_distance(first: UInt8[ndarray, "height width 3"], second: UInt8[ndarray, "height width 3"]) -> float:
    difference = first.astype(np.float32) - second
    return float(np.sqrt(np.mean(np.square(difference), dtype=np.float64))) / 255
