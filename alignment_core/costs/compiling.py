"""Whether compiling pays: what it takes against what it saves in the steps to come, by one rule for estimates and for runs."""

from collections.abc import Iterable

from alignment_core.costs.activations import unit_of
from alignment_core.costs.layers import Layer

# Of a training step's seconds. Measured: 0.08 on a CPU in float32 (docs/performance.md); on an H100 with SD 1.5 0.07 with most blocks left
# plain, and 0.3 with all of them and channels last. Less is assumed: where it is near, the run stays what it is without.
SAVED_SHARE = 0.07


def pays(compiling_seconds: float, training_seconds: float) -> bool:
    """Whether it saves more than it takes, with `training_seconds` to come."""
    return saved_seconds(training_seconds) > compiling_seconds


def saved_seconds(training_seconds: float) -> float:
    """What is expected to be saved of them."""
    return SAVED_SHARE * training_seconds


def num_graphs(layers: Iterable[Layer], *, has_reference: bool) -> int:
    """What is compiled: blocks of different shapes, with a gradient, and for a reference without."""
    units: dict[str, list[tuple[str, int, int, int]]] = {}
    for layer in layers:
        if (unit := unit_of(layer)) is not None:
            own = layer.name[len(unit) :]
            units.setdefault(unit, []).append((own, layer.into, layer.out, layer.places))
    return len({tuple(sorted(unit)) for unit in units.values()}) * (2 if has_reference else 1)
