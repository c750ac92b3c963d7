"""What a file of weights holds, and a run that started from one."""

from typing import Literal

from pydantic import Field

from alignment_core.reports.base import ReportBase


class WeightsReport(ReportBase):
    """What a file of weights holds, as far as it can be told without the model that it is for."""

    holds: Literal["lora", "denoiser"] = Field(
        default="lora",
        description="A LoRA, or a whole U-Net or transformer for an evaluation, which has no ranks and no alphas.",
    )
    format: Literal["peft", "diffusers", "kohya"] = Field(description="Whose names the file has.")
    num_layers: int
    ranks: list[int] = Field(description="Which ranks its layers have, the lowest first.")
    alphas: list[float] = Field(description="Which alphas its layers have; that of a layer without one is its rank.")
    changes_text_encoder: bool = Field(description="Whether it is of a text encoder too.")
    says_alpha: bool = Field(
        default=True,
        description="Whether its alpha is known: a file of PEFT's says it in the `adapter_config.json` beside it alone, and a job "
        "says it in `start.alpha` then.",
    )


class LoraReport(WeightsReport):
    """The same with what is looked at before a run, and too long to show."""

    layers: dict[str, tuple[int, int]] = Field(
        default={}, description="Inputs and outputs of each layer, by the name that the file has for it."
    )
    shapes: dict[str, tuple[int, ...]] = Field(
        default={},
        description="Of a whole denoiser: the shape of each linear layer's and convolution's weight, by name.",
    )


class StartingPoint(ReportBase):
    """The LoRA of others that a run started from, and what became of it."""

    lora: str = Field(description="The upload's or checkpoint's id, the repository and file, or the path.")
    lora_sha256: str
    format: Literal["peft", "diffusers", "kohya"] = Field(description="Whose names its file has.")
    num_layers: int
    mode: Literal["merge", "train"] = Field(description="Added to the model's weights, or trained further.")
    initial: Literal["base", "lora"] = Field(description="Whether the initial model, the one compared with, has it.")
