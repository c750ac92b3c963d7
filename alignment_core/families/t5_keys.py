"""T5's encoder in single files: transformers' own names."""

from collections.abc import Mapping

from torch import Tensor

SHARED, TIED = "shared.weight", "encoder.embed_tokens.weight"


def transformers_t5(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights behind `prefix`; the tokens' under both their names, since some readers tie nothing."""
    tokens = weights[SHARED] if SHARED in weights else weights[TIED]
    return {prefix + key: one for key, one in {**weights, SHARED: tokens, TIED: tokens.clone()}.items()}
