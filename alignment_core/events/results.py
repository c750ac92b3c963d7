"""What a run leaves: checkpoints, the result, the proof."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.events.base import EventBase


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
