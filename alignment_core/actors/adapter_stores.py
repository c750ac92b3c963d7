"""The store that a moving reference of a LoRA is kept in, by the name that a spec gives it."""

from typing import Literal, assert_never

from alignment_core.actors.reading_network import Denoiser
from alignment_core.actors.reference_copies import CopiesApart
from alignment_core.actors.reference_deltas import DenseDelta, LowrankSum
from alignment_core.actors.reference_weights import AdapterFactors, ReferenceWeights, has_initial_adapter

AdapterStore = Literal["hard_copy", "dense_delta", "lowrank_sum", "shared_A", "factor_average"]


def adapter_store(denoiser: Denoiser, store: AdapterStore, rank_cap: int | None) -> ReferenceWeights:
    """`rank_cap` belongs to `lowrank_sum`; `shared_A` takes an adapter whose A is frozen.

    Raises `ModelError` when a target module cannot be averaged in this way.
    """
    match store:
        case "dense_delta":
            begun = has_initial_adapter(denoiser)
            return CopiesApart(AdapterFactors(denoiser), DenseDelta(denoiser), begins_as_copy=begun)
        case "lowrank_sum":
            assert rank_cap is not None, "lowrank_sum has a cap"
            begun = has_initial_adapter(denoiser)
            return CopiesApart(AdapterFactors(denoiser), LowrankSum(denoiser, rank_cap), begins_as_copy=begun)
        case "shared_A":
            trained = [name for name, p in denoiser.named_parameters() if p.requires_grad]
            assert not any(".lora_A." in name for name in trained), "A is trained: call freeze_a first"
            return AdapterFactors(denoiser)
        case "hard_copy" | "factor_average":
            return AdapterFactors(denoiser)
        case _:
            assert_never(store)
