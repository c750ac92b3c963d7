"""What one process holds of a network whose weights lie in shares, by `actors/sharding.py`."""

import re
from collections import Counter
from collections.abc import Iterable

from alignment_core.costs.activations import unit_of
from alignment_core.costs.layers import Layer
from alignment_core.spec.job import JobSpec

_OUTER = re.compile(r"(?:down_blocks|up_blocks|transformer_blocks|single_transformer_blocks)\.\d+")


def num_shares(spec: JobSpec) -> int:
    """In how many parts a network's weights lie."""
    return spec.resources.processes if spec.resources.strategy == "fsdp2" else 1


def brought_together(layers: Iterable[Layer]) -> int:
    """Weights that a process has whole beside its shares, at most: a block's, two of the transformer blocks in it (the next one
    comes while one is computed), and what is in no block."""
    outer, inner = Counter[str](), Counter[str]()
    for layer in layers:
        unit, block = unit_of(layer), _OUTER.match(layer.name)
        if unit is not None and "transformer_blocks" in unit:
            inner[unit] += layer.numel
        else:
            outer[block[0] if block else ""] += layer.numel
    around = outer.pop("", 0)
    return around + max(outer.values(), default=0) + 2 * max(inner.values(), default=0)
