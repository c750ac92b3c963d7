"""The tiny model and data of the library's tests, by shorter names."""

from tests.alignment_core.conftest import cache_dir
from tests.alignment_core.conftest import tiny_model as model
from tests.alignment_core.conftest import tiny_pairs as pairs

__all__ = ["cache_dir", "model", "pairs"]
