"""What the steps come to: metrics, pace, held-out rewards, timesteps."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.events.base import EventBase


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
