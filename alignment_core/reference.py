"""How the reference model moves: implementations of `protocols.ReferenceUpdate`."""

from torch import Tensor

from alignment_core.actors import Actors


class FrozenReference:
    """The reference stays the starting model, and the policy pays nothing beyond the method's own loss."""

    def penalty(self, actors: Actors, batch: object) -> None:
        return None

    def after_step(self, actors: Actors, step: int) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state, "a frozen reference has no state"
