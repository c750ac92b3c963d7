"""Events: what a run tells its caller, the same type from the GPU to the browser.

`align()` yields them, `python -m alignment_core run` prints one JSON object a line, the worker stores them, the service
streams them. Paths in events are relative to the run's work folder.
"""

from alignment_core.events.base import EventBase
from alignment_core.events.candidates import CandidatesDrawn, CandidatesStarted, DrawnImage
from alignment_core.events.evaluations import (
    ContenderLoaded,
    ImagesScored,
    ProofCompleted,
    ProofStarted,
    VerificationCompleted,
)
from alignment_core.events.exports import ExportCompleted, ExportEvent, ExportProgressed, export_event_from_json
from alignment_core.events.phases import Part, Phase, PhaseChanged, PhaseDivided, PhaseProgressed
from alignment_core.events.pictures import ComparedImages, PlaceInPicture, SampleGrid, SamplesDrawn
from alignment_core.events.results import (
    CheckpointSaved,
    EvaluationCompleted,
    FileRecord,
    ResultSelected,
    TrackingFileWritten,
)
from alignment_core.events.run import Action, ActionAnswered, RunCompleted, RunFailed, RunStopped, WarningRaised
from alignment_core.events.start import (
    CompilingWeighed,
    DatasetChecked,
    MicroBatchChosen,
    ModelLoaded,
    PrecisionChosen,
    PrecisionMeasured,
    RunStarted,
    StartCheck,
    StartChecked,
    VaePrecisionChosen,
)
from alignment_core.events.stream import Event, event_from_json, event_to_json
from alignment_core.events.training import (
    ProbeCompleted,
    StepCompleted,
    Throughput,
    ThroughputMeasured,
    TimestepBin,
    TimestepTable,
    ValidationCompleted,
)
