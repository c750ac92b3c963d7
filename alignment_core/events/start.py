"""What is going to be run, and what was measured and tried before it."""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from alignment_core.events.base import EventBase


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
    warnings: list[str] = Field(default=[])
    versions: dict[str, str] = Field(description="Attune, Python and the libraries that decide the numbers.")


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
