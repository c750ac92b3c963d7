"""Every event of a run as one union, and as a line of JSON."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from alignment_core.events.candidates import CandidatesDrawn, CandidatesStarted
from alignment_core.events.evaluations import (
    ContenderLoaded,
    ImagesScored,
    ProofCompleted,
    ProofStarted,
    VerificationCompleted,
)
from alignment_core.events.phases import PhaseChanged, PhaseDivided, PhaseProgressed
from alignment_core.events.pictures import SamplesDrawn
from alignment_core.events.results import CheckpointSaved, EvaluationCompleted, ResultSelected, TrackingFileWritten
from alignment_core.events.run import ActionAnswered, RunCompleted, RunFailed, RunStopped, WarningRaised
from alignment_core.events.start import (
    CompilingWeighed,
    DatasetChecked,
    MicroBatchChosen,
    ModelLoaded,
    PrecisionChosen,
    PrecisionMeasured,
    RunStarted,
    StartChecked,
    VaePrecisionChosen,
)
from alignment_core.events.training import (
    ProbeCompleted,
    StepCompleted,
    ThroughputMeasured,
    TimestepTable,
    ValidationCompleted,
)

Event = Annotated[
    RunStarted
    | PhaseChanged
    | PhaseDivided
    | ModelLoaded
    | MicroBatchChosen
    | PrecisionChosen
    | VaePrecisionChosen
    | CompilingWeighed
    | StartChecked
    | PrecisionMeasured
    | PhaseProgressed
    | DatasetChecked
    | StepCompleted
    | ThroughputMeasured
    | ValidationCompleted
    | ProbeCompleted
    | TimestepTable
    | CheckpointSaved
    | ResultSelected
    | SamplesDrawn
    | TrackingFileWritten
    | EvaluationCompleted
    | ProofStarted
    | ContenderLoaded
    | ImagesScored
    | CandidatesStarted
    | CandidatesDrawn
    | ProofCompleted
    | VerificationCompleted
    | ActionAnswered
    | WarningRaised
    | RunStopped
    | RunFailed
    | RunCompleted,
    Field(discriminator="type"),
]

_event_adapter: TypeAdapter[Event] = TypeAdapter(Event)


def event_from_json(line: str | bytes) -> Event:
    """Parse one line of a run's event stream; raises pydantic's `ValidationError` when it is none."""
    return _event_adapter.validate_json(line)


def event_to_json(event: Event) -> str:
    """One line of JSON; NaN and infinity become null, as JSON has neither."""
    return event.model_dump_json()
