"""Which work a run is at, and how far."""

from typing import Literal

from pydantic import Field

from alignment_core.events.base import EventBase

Phase = Literal[
    "loading",
    "checking",
    "caching",
    "compiling",
    "sampling",
    "scoring",
    "training",
    "evaluating",
    "saving",
    "uploading",
]


class PhaseChanged(EventBase):
    type: Literal["phase_changed"] = "phase_changed"
    phase: Phase


class PhaseProgressed(EventBase):
    """How far a phase other than training is, in its own unit (images, pairs, files)."""

    type: Literal["phase_progressed"] = "phase_progressed"
    phase: Phase
    done: int
    total: int
    cached: int = Field(default=0, description="Of `done`, how many were found in the cache.")


Part = Literal["sampling", "scoring", "waiting_for_data", "waiting_for_storage"]


class PhaseDivided(EventBase):
    """What of a phase went into other work, since it was told last: its seconds are counted as those of the work."""

    type: Literal["phase_divided"] = "phase_divided"
    phase: Phase | Literal["starting"]
    seconds: dict[Part, float] = Field(
        description="Of `training`: `sampling` and `scoring` (decoding too) where the method draws, else `waiting_for_data`. Of `sampling`: "
        "`scoring`. Of `starting` and `uploading`: `waiting_for_storage`, a store or a disk that was away."
    )
