"""Events: what a run tells its caller, the same type from the GPU to the browser.

`align()` yields them, `python -m alignment_core run` prints one JSON object a line, the worker stores them, the service
streams them. Paths in events are relative to the run's work folder.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter

from alignment_core.errors import Category

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


class EventBase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")

    time: datetime = Field(default_factory=lambda: datetime.now(UTC), description="When it happened, UTC.")


class RunStarted(EventBase):
    """The first event of every attempt: what is really going to be run."""

    type: Literal["run_started"] = "run_started"
    spec: dict[str, Any] = Field(
        default={}, description="The resolved job spec; a server leaves it out: its job has it."
    )
    spec_sha256: str
    learning_rate: float = Field(description="The effective learning rate after warm-up.")
    examples_per_step: int = Field(
        # events that were stored before call it by the name that it had when there were pairs alone
        validation_alias=AliasChoices("examples_per_step", "pairs_per_step"),
        description="The effective batch: batch size x accumulation x processes.",
    )
    total_steps: int
    device: str
    precision: str = Field(description="`auto` where it is yet to be measured: `precision_chosen` tells it.")
    resumed_from_step: int | None = None
    warnings: list[str] = []
    versions: dict[str, str] = Field(description="Attune, Python and the libraries that decide the numbers.")


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


class ModelLoaded(EventBase):
    """What is trained. `base_model_sha256` covers every weight and config file of the model folder."""

    type: Literal["model_loaded"] = "model_loaded"
    base_model_sha256: str
    num_parameters: int = Field(description="Parameters of the denoiser.")
    num_trainable_parameters: int
    resolution: int = Field(description="Pixels, height and width.")
    prediction_type: str


class PrecisionChosen(EventBase):
    """What `precision: auto` came to on this GPU: the half precision whose predictions are nearest to float32."""

    type: Literal["precision_chosen"] = "precision_chosen"
    precision: Literal["bf16", "fp16"]
    prediction_errors: dict[str, float | None] = Field(
        description="Of each half precision, the root mean square error over that of the prediction; null where it overflows."
    )


class VaePrecisionChosen(EventBase):
    """What `vae_precision: auto` came to on this GPU and for this data: how images are encoded."""

    type: Literal["vae_precision_chosen"] = "vae_precision_chosen"
    precision: Literal["fp32", "bf16", "fp16"]
    latent_errors: dict[str, float | None] = Field(
        description="Of each half precision, the error of the latents over what rounding the pixels to 8 bits moves them, in the first batch's "
        "worst image; null where it overflows. A precision is used up to 8."
    )


class MicroBatchChosen(EventBase):
    """How `micro_batch: auto` cuts up a step, once the first step fitted so; told again where a later one did not."""

    type: Literal["micro_batch_chosen"] = "micro_batch_chosen"
    batch_size: int = Field(description="Examples in a forward pass.")
    gradient_accumulation_steps: int


class CompilingWeighed(EventBase):
    """What `training.compile` came to: the seconds that compiling is expected to take, and to save in the steps to come."""

    type: Literal["compiling_weighed"] = "compiling_weighed"
    is_compiled: bool = Field(description="Whether the steps that follow are compiled.")
    num_graphs: int = Field(description="Blocks of different shapes, with a gradient and without.")
    compiling_seconds: float = Field(description="Where nothing of it is cached from a run before.")
    saved_seconds: float = Field(description="Over all steps to come.")


class StartCheck(BaseModel):
    """One thing that was tried before the run, and how long that took."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: Literal["load", "step", "checkpoint", "picture", "reward"]
    seconds: float
    detail: str


class StartChecked(EventBase):
    """A real step, a checkpoint written and read, a picture and its rewards, before anything that takes long; all of it undone."""

    type: Literal["start_checked"] = "start_checked"
    checks: list[StartCheck]
    seconds: float = Field(description="Of all checks, with loading the model and encoding one batch.")
    checkpoint_bytes: int = Field(description="What a checkpoint of the run takes.")
    peak_device_gib: float | None = Field(description="The most that tensors took on the device; null on a CPU.")


class PrecisionMeasured(EventBase):
    """How far off the first batch's logits are in half precision, for a policy a little off its reference."""

    type: Literal["precision_measured"] = "precision_measured"
    precision: str
    logit_error: float | None = Field(
        description="Root mean square error against float32 of u, beta times the margin; of methods without a logit, of the "
        "log-ratio. Null where it is no number."
    )
    logit_rms: float | None = Field(description="Root mean square of the logits themselves.")
    num_examples: int


class DatasetChecked(EventBase):
    """The preflight report of the data this run uses (`reports.DatasetReport`), and how it was split."""

    type: Literal["dataset_checked"] = "dataset_checked"
    report: dict[str, Any]
    num_training_examples: int
    num_validation_examples: int


class StepCompleted(EventBase):
    """One optimiser step. `metrics` are means over every pair of the step; names as in `docs/methods.md`."""

    type: Literal["step_completed"] = "step_completed"
    step: int = Field(description="Optimiser steps done, counted from 1.")
    total_steps: int
    metrics: dict[str, float]
    step_seconds: float
    eta_seconds: float | None = None


class Throughput(BaseModel):
    """How fast the last steps were and what they took. Shares are of the time that training and saving took together."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")

    num_steps: int = Field(description="Optimiser steps that were measured.")
    examples_per_second: float = Field(description="Of all processes.")
    tflops_per_second: float | None = Field(
        description="Of all processes, by the FLOPs of the first batch, a multiply-add as two; null on a CPU, and where a reference's errors are "
        "remembered."
    )
    mfu: float | None = Field(description="That over each card's peak in half precision; null for an unknown card.")
    peak_device_gib: float | None = Field(description="The most that tensors took on the device so far; null on a CPU.")
    peak_host_gib: float = Field(description="The most that the process took of the host's memory so far.")
    waiting_share: float = Field(description="Until the next batch was there; online methods draw theirs in it.")
    saving_share: float = Field(description="Training stood still to save.")


class ThroughputMeasured(EventBase):
    """The pace of the steps since the last one of these: when a checkpoint is due, and after the last step."""

    type: Literal["throughput_measured"] = "throughput_measured"
    step: int
    throughput: Throughput


class ValidationCompleted(EventBase):
    """The same metrics on the validation split, at fixed noise, timesteps and posterior draws."""

    type: Literal["validation_completed"] = "validation_completed"
    step: int
    metrics: dict[str, float]


class ProbeCompleted(EventBase):
    """The rewards of the policy on a few held-out prompts, always the same ones from the same seeds."""

    type: Literal["probe_completed"] = "probe_completed"
    step: int
    num_prompts: int
    metrics: dict[str, float] = Field(
        description="Mean of every evaluation reward, of `prompt_following`, and `diversity`; `NAME_gain` is less the "
        "initial model's, `diversity_ratio` over it."
    )
    is_best: bool = Field(description="Whether no probe before had a higher mean of the first evaluation reward.")


class TimestepBin(BaseModel):
    """One of ten equal bins over t. Means over the bin's pairs; null where the bin is empty or the method has no such number."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")

    first_timestep: int
    last_timestep: int
    count: int = Field(description="Pairs in the bin.")
    reward_magnitude: float | None = Field(description="Mean |R_x| over both images of a pair.")
    implicit_accuracy: float | None = Field(description="Share of pairs with u > 0; ties count half.")
    margin: float | None = Field(description="Mean u.")
    signal_variance: float | None = Field(description="Variance of the unscaled margin, Delta.")
    weight: float | None = Field(description="Mean w(t), what multiplied the loss.")


class TimestepTable(EventBase):
    """Where on the noise scale the reward signal lives: with every validation and at the end of training."""

    type: Literal["timestep_table"] = "timestep_table"
    step: int
    since_step: int = Field(description="Training: the pairs of the steps after this one, of this attempt.")
    split: Literal["training", "validation"]
    bins: list[TimestepBin] = Field(description="The noisiest first.")


class FileRecord(BaseModel):
    """A file with what is needed to check it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="Relative, with forward slashes.")
    size_bytes: int
    sha256: str


class CheckpointSaved(EventBase):
    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int
    path: str = Field(description="Folder of the checkpoint; its `manifest.json` lists every file.")
    kind: Literal["lora", "full"]
    is_final: bool = Field(description="Whether training ended with it.")
    is_best: bool = Field(default=False, description="Whether no probe before had a higher held-out reward.")
    result_step: int | None = Field(
        default=None, description="Said by the final checkpoint: the step of the one that is the run's result."
    )
    size_bytes: int


class ResultSelected(EventBase):
    """Training has ended: which checkpoint is the result, and why."""

    type: Literal["result_selected"] = "result_selected"
    step: int = Field(description="Of the checkpoint that is the result, and that the report is about.")
    path: str
    selected_by: Literal["last_step", "held_out_reward", "rollback"]
    last_step: int = Field(description="Optimiser steps made.")
    stopped_by: str | None = Field(default=None, description="Code of the guard that ended training, if one did.")
    message: str


class PlaceInPicture(BaseModel):
    """The upper left corner of an image in a picture of many, in pixels from that of the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: int
    y: int


class ComparedImages(BaseModel):
    """Two images in a picture: base and policy, of one prompt from one seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: int = Field(description="Place of its prompt in the list, from 0.")
    seed: int = Field(description="Of the noise that both began from.")
    base: PlaceInPicture
    policy: PlaceInPicture


class SampleGrid(BaseModel):
    """Where each image stands in a picture, so that two of them can be laid over each other. All sizes are in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tile_width: int = Field(description="Of each image, in the picture.")
    tile_height: int
    image_width: int = Field(
        description="Of what the models drew: a larger tile shows it enlarged, a smaller one reduced."
    )
    image_height: int
    tiles: list[ComparedImages]


class SamplesDrawn(EventBase):
    """Images to look at: base and policy, same prompts, same seeds."""

    type: Literal["samples_drawn"] = "samples_drawn"
    step: int
    path: str = Field(description="PNG file.")
    prompts: list[str]
    grid: SampleGrid | None = Field(
        default=None, description="Where each image stands; runs of older versions did not say it."
    )


class TrackingFileWritten(EventBase):
    """An event file of TensorBoard is complete: a new one is begun after every checkpoint."""

    type: Literal["tracking_file_written"] = "tracking_file_written"
    path: str


class EvaluationCompleted(EventBase):
    """The proof. `report` is a `reports.EvaluationReport`; the file at `path` holds the same."""

    type: Literal["evaluation_completed"] = "evaluation_completed"
    step: int
    path: str
    page: str | None = Field(default=None, description="The same as one HTML file, for people.")
    report: dict[str, Any] = Field(default={}, description="A server leaves it out: its job has it.")


class ProofStarted(EventBase):
    """The first event of every attempt at an evaluation: what is really going to be drawn."""

    type: Literal["proof_started"] = "proof_started"
    spec: dict[str, Any] = Field(
        default={}, description="The resolved spec; a server leaves it out: its evaluation has it."
    )
    spec_sha256: str
    num_images: int = Field(description="Of all contenders.")
    num_there: int = Field(description="Of these, what earlier attempts drew.")
    device: str
    card: str
    precision: str = Field(description="`auto` where it is yet to be measured: `precision_chosen` tells it.")
    versions: dict[str, str]


class ContenderLoaded(EventBase):
    """A model of an evaluation is in memory; `contender` is a `reports.ContenderFacts`."""

    type: Literal["contender_loaded"] = "contender_loaded"
    contender: dict[str, Any]


class ImagesScored(EventBase):
    """Some prompts of a contender were drawn and scored, and are kept: no later attempt draws them again."""

    type: Literal["images_scored"] = "images_scored"
    contender: str
    path: str = Field(description="The file that holds them.")
    done: int = Field(description="Images of all contenders that are there.")
    total: int


class CandidatesStarted(EventBase):
    """The first event of every attempt at drawing candidates: what is really going to be drawn."""

    type: Literal["candidates_started"] = "candidates_started"
    spec: dict[str, Any] = Field(
        default={}, description="The resolved spec; a server leaves it out: its candidates have it."
    )
    spec_sha256: str
    num_images: int = Field(description="Of all contenders.")
    num_there: int = Field(description="Of these, what earlier attempts drew.")
    device: str
    card: str
    precision: str = Field(description="`auto` where it is yet to be measured: `precision_chosen` tells it.")
    versions: dict[str, str]


class DrawnImage(BaseModel):
    """An image of a contender, as a PNG file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="The file that holds it.")
    position: int = Field(description="Place of its prompt in the list, from 0.")
    number: int = Field(description="Place of its seed among those of the prompt, from 0.")
    prompt: str
    seed: int
    width: int
    height: int
    pixels_sha256: str = Field(description="Of height, width and RGB bytes, whatever the file.")
    fingerprint: str = Field(
        description="Hash of all that it follows from: the model's files, prompt, seed, settings, versions."
    )
    reused: bool = Field(default=False, description="It had been drawn before, and was not drawn again.")


class CandidatesDrawn(EventBase):
    """Some images of a contender are there, and are kept: no later attempt draws them again."""

    type: Literal["candidates_drawn"] = "candidates_drawn"
    contender: str
    recipe: dict[str, Any] = Field(
        description="A `reports.ImageRecipe`: what they were made with, but prompt and seed."
    )
    images: list[DrawnImage] = Field(default=[], description="A server leaves them out: its candidates have them.")
    done: int = Field(description="Images of all contenders that are there.")
    total: int


class ProofCompleted(EventBase):
    """The evaluation. `report` is a `reports.ProofReport`; `scores` is the file with every score."""

    type: Literal["proof_completed"] = "proof_completed"
    path: str
    scores: str
    report: dict[str, Any] = Field(default={}, description="A server leaves it out: its evaluation has it.")


class VerificationCompleted(EventBase):
    """Some images of an evaluation were drawn again. `report` is a `reports.VerificationReport`."""

    type: Literal["verification_completed"] = "verification_completed"
    report: dict[str, Any]


Action = Literal["checkpoint", "sample", "probe"]


class ActionAnswered(EventBase):
    """What was asked of the run by `POST .../actions` is done, or cannot be."""

    type: Literal["action_answered"] = "action_answered"
    id: str = Field(description="Of the request.")
    action: Action
    step: int = Field(description="After which it was done.")
    metrics: dict[str, float] = Field(
        default={},
        description="Of a probe: as those of `probe_completed`. They are in no curve and choose no checkpoint.",
    )
    refused: str | None = Field(default=None, description="Why it could not be done.")


class WarningRaised(EventBase):
    type: Literal["warning_raised"] = "warning_raised"
    code: str
    message: str
    step: int | None = None


class RunStopped(EventBase):
    """The run was asked to leave, saved its state and left; it can be resumed from `step`."""

    type: Literal["run_stopped"] = "run_stopped"
    step: int


class RunFailed(EventBase):
    type: Literal["run_failed"] = "run_failed"
    code: str
    message: str
    category: Category
    retryable: bool
    hint: str | None = None
    step: int | None = Field(default=None, description="The step of the last good checkpoint, if there is one.")


class RunCompleted(EventBase):
    type: Literal["run_completed"] = "run_completed"
    step: int


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


# --- exports -------------------------------------------------------------------------------------------------------


class ExportProgressed(EventBase):
    """How far an export is, in percent of what it writes."""

    type: Literal["export_progressed"] = "export_progressed"
    percent: float


class ExportCompleted(EventBase):
    """Every file of the export, with its model card."""

    type: Literal["export_completed"] = "export_completed"
    files: list[FileRecord]


ExportEvent = Annotated[ExportProgressed | ExportCompleted | RunFailed, Field(discriminator="type")]

_export_adapter: TypeAdapter[ExportEvent] = TypeAdapter(ExportEvent)


def export_event_from_json(line: str | bytes) -> ExportEvent:
    """Parse one line that `python -m alignment_core export` printed; pydantic's `ValidationError` when it is none."""
    return _export_adapter.validate_json(line)
