"""What a worker does, told to whoever traces it: nobody, unless the operator switches traces on (`worker/attempt_traces.py`)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from alignment_core.events import Event
from service.store.leases import LostAttempt
from service.store.records.jobs import Claim


@dataclass(frozen=True)
class Errand:
    """Work beside the jobs, as it was claimed: `of` says what the id is one of, `traceparent` what asked for it."""

    name: Literal["export", "push", "check", "deliver"]
    of: Literal["export", "push", "dataset", "delivery"]
    id: str
    attempt: int
    project_id: str
    asked_at: datetime
    traceparent: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)


ErrandEnded = Callable[[str, str | None], None]
"""Takes the state in which the errand is left, and the code of what went wrong."""


class Traces(Protocol):
    def claimed(self, claim: Claim) -> None:
        """An attempt begins in this worker."""
        ...

    def heard(self, job_id: str, event: Event) -> None:
        """Something that its run said."""
        ...

    def storing(self, job_id: str, event: Event) -> AbstractContextManager[None]:
        """Around bringing the files of which an event speaks to the object store."""
        ...

    def ended(self, job_id: str, state: str, time: datetime) -> None:
        """The attempt ended here."""
        ...

    def forget(self, job_id: str) -> None:
        """Let go of the attempt, which is another's to tell of if it has not ended here."""
        ...

    def errand(self, errand: Errand) -> AbstractContextManager[ErrandEnded]:
        """Around work beside the jobs; what it queues is in its trace. One whose end nobody tells was another's by then."""
        ...

    def found_lost(self, lost: Sequence[LostAttempt]) -> None:
        """Attempts of other workers ended without a word."""
        ...

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        ...


class NoTraces:
    """Traces that are switched off."""

    def claimed(self, claim: Claim) -> None:
        pass

    def heard(self, job_id: str, event: Event) -> None:
        pass

    def storing(self, job_id: str, event: Event) -> AbstractContextManager[None]:
        return nullcontext()

    def ended(self, job_id: str, state: str, time: datetime) -> None:
        pass

    def forget(self, job_id: str) -> None:
        pass

    def errand(self, errand: Errand) -> AbstractContextManager[ErrandEnded]:
        return nullcontext(lambda _state, _code: None)

    def found_lost(self, lost: Sequence[LostAttempt]) -> None:
        pass

    def close(self) -> None:
        pass
