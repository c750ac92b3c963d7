"""What a frozen reference errs by, asked once: for a fixed number of draws of (t, eps) an example.

The reference of an offline method that never moves says the same whenever it is asked the same. So an example gets `num_draws`
draws of its own, which epochs take in turn, and the second visit of a draw needs no forward of the reference. The numbers are
those of asking again; what changes is that an example is seen at these draws and no others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignment_core.datasets.durable_files import write_durably
from alignment_core.ranks import Ranks

Visits = Int[Tensor, "batch 2"]
"""The example and the number of its draw, row by row, on the CPU."""
Errors = Float[Tensor, "batch images"]


@dataclass
class ReferenceErrors:
    """Errors `[examples, draws, images]` of what was asked so far, on the device; `known` says of which, on the CPU."""

    values: Float[Tensor, "examples draws images"]
    known: Tensor
    path: Path | None = None
    num_new: int = field(default=0)
    _unshared: list[Visits] = field(default_factory=list)
    _is_shared: bool = field(default=False)

    @classmethod
    def empty(
        cls, num_examples: int, num_draws: int, num_images: int, device: torch.device, path: Path | None = None
    ) -> "ReferenceErrors":
        """Nothing is known, or what an earlier run left at `path`; a damaged file is as good as none."""
        values = torch.zeros(num_examples, num_draws, num_images)
        known = torch.zeros(num_examples, num_draws, dtype=torch.bool)
        if (found := _read(path)) is not None and found["values"].shape == values.shape:
            values, known = found["values"], found["known"]
        return cls(values.to(device), known, path)

    def of(self, visits: Visits, ask: Callable[[], Errors]) -> Errors:
        """The errors of these visits: remembered, or those that `ask` gives, of all of them."""
        examples, draws = visits.unbind(dim=1)
        if not self.known[examples, draws].all():
            self._learn(visits, ask())
            self._unshared.append(visits)
        return self._of(visits)

    def share(self, ranks: Ranks) -> None:
        """After each step of all processes: let every one know what any has asked, since epochs hand examples to others."""
        if ranks.count > 1 and not self._is_shared:
            own = torch.cat([*self._unshared, torch.empty(0, 2, dtype=torch.long)])
            for visits, errors in ranks.everywhere(lambda: (own, self._of(own).cpu())):
                self._learn(visits, errors)
            self._is_shared = bool(self.known.all())  # everywhere at once, as what is known now is
        self._unshared.clear()

    def _learn(self, visits: Visits, errors: Errors) -> None:
        examples, draws = visits.unbind(dim=1)
        device = self.values.device
        self.values[examples.to(device), draws.to(device)] = errors.to(device)
        self.num_new += int((~self.known[examples, draws]).sum())
        self.known[examples, draws] = True

    def _of(self, visits: Visits) -> Errors:
        examples, draws = visits.to(self.values.device).unbind(dim=1)
        return self.values[examples, draws]

    def save(self) -> None:
        """Leave what is known to the runs that come after, which may be this one's next attempt."""
        if self.path is None or not self.num_new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self.path, save({"values": self.values.cpu(), "known": self.known}))
        self.num_new = 0


def _read(path: Path | None) -> dict[str, Tensor] | None:
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in ("values", "known")}
    except SafetensorError:
        return None
