"""Trackers: they hear of every event of a run, and what comes of it joins the stream as events."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from alignment_core.events import Event, TrackingFileWritten, WarningRaised
from alignment_core.spec.trackers import TrackerName
from alignment_core.tracking.points import Ending, Subject, told_of
from alignment_core.tracking.relay import Relay
from alignment_core.tracking.tracker import open_tracker

SAVE_SECONDS = 1.0  # that a checkpoint waits for what was told before it to be in a file
END_SECONDS = 15.0  # that the end of a run waits for trackers


class Trackers:
    """All trackers of a run. Of several processes the first one has them."""

    def __init__(self, names: Sequence[TrackerName], subject: Subject) -> None:
        self._subject = subject
        self._relays = [
            Relay(name, partial(open_tracker, name, subject.workdir), partial(told_of, subject=subject))
            for name in dict.fromkeys(names)
        ]
        self._is_over = False

    @property
    def is_hung(self) -> bool:
        return self._is_over and any(relay.is_hung for relay in self._relays)

    def hear(self, event: Event) -> Iterator[Event]:
        """Tell them of an event, then give it back, behind what has to come before it."""
        for relay in self._relays:
            relay.tell(event)
            if event.type == "checkpoint_saved" and relay.name == "tensorboard":
                relay.catch_up(SAVE_SECONDS)
        if event.type == "run_completed":
            yield from self.end("completed")
        yield from self._came()
        yield event

    def end(self, ending: Ending) -> Iterator[Event]:
        """Have all of them write what is left; once."""
        if not self._is_over:
            self._is_over = True
            for relay in self._relays:
                relay.end(ending, END_SECONDS)
        yield from self._came()

    def _came(self) -> Iterator[TrackingFileWritten | WarningRaised]:
        for relay in self._relays:
            yield from relay.warnings()
            yield from map(self._written, relay.files())

    def _written(self, path: Path) -> TrackingFileWritten:
        return TrackingFileWritten(path=path.relative_to(self._subject.workdir).as_posix())
