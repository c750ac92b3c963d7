"""What an attempt at a job does, told to whoever traces it: nobody, unless the operator switches traces on (`worker/attempt_traces.py`)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Protocol

from alignment_core.events import Event
from service.store.leases import LostAttempt
from service.store.records import Claim


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

    def found_lost(self, lost: Sequence[LostAttempt]) -> None:
        pass

    def close(self) -> None:
        pass
