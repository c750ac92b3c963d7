"""Where training starts, when it is not at the model as it is: a LoRA that others trained. Pure data, no torch."""

import re
from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, StringConstraints, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.sources import (
    COMMIT,
    REPO_ID,
    WEIGHTS_ID,
    CheckpointSource,
    LocalPath,
    WeightsId,
    checkpoint_named,
)
from alignment_core.spec.unions import OneOf

# Folders and a name, none of which begins with a dot.
SAFETENSORS_FILE = r"^(?:[A-Za-z0-9_][A-Za-z0-9_. -]*/)*[A-Za-z0-9_][A-Za-z0-9_. -]*\.safetensors$"


ALPHA_UNKNOWN = "a file of PEFT's does not say its alpha, and the adapter_config.json that does is not with it: write its lora_alpha as start.alpha"


class StoredLora(Spec):
    """A LoRA that was uploaded to the service; see `POST /v1/weights`."""

    type: Literal["stored"] = "stored"
    id: WeightsId = Field(description="Id of weights whose state is `ready`.")


class HubLora(Spec):
    """A safetensors file of a repository of the Hugging Face Hub at a pinned commit."""

    type: Literal["hub"] = "hub"
    repo_id: str = Field(max_length=200, pattern=REPO_ID, description="`owner/name` of the repository.")
    revision: str = Field(
        pattern=COMMIT, description="Full commit hash. A branch or tag is refused, since it may move between two runs."
    )
    file: Annotated[str, StringConstraints(max_length=300, pattern=SAFETENSORS_FILE)] = Field(
        default="pytorch_lora_weights.safetensors", description="Which file of the repository."
    )


class LocalLora(Spec):
    """A safetensors file on the machine that trains, or a folder that holds one, as a checkpoint's does.

    The HTTP service refuses it unless its operator allows it.
    """

    type: Literal["local"] = "local"
    path: LocalPath = Field(examples=["loras/style.safetensors"])


def _named(text: str) -> dict[str, str] | None:
    """`wts_...` as the uploaded weights of this id, `ckpt_...` as a checkpoint."""
    return {"type": "stored", "id": text} if re.fullmatch(WEIGHTS_ID, text) else checkpoint_named(text)


LoraSource = Annotated[
    StoredLora | CheckpointSource | HubLora | LocalLora,
    OneOf(
        _named,
        'write the id of uploaded weights ("wts_...") or of a checkpoint ("ckpt_..."), or {"type": "local", "path": FILE}',
    ),
]


class StartSpec(Spec):
    """A LoRA to start from, under PEFT's, diffusers' or kohya's names; the file's keys say which.

    `merge` adds it to the model's weights before anything else: initial model, reference and policy all have it, and a new
    adapter, or every weight, is trained on top. `train` goes on with that very adapter; `initial` then says what the run is
    compared with and held to.
    """

    lora: LoraSource
    mode: Literal["merge", "train"] = "merge"
    initial: Literal["base", "lora"] | None = Field(
        default=None,
        description="What the initial model is, which is also the reference at first: the model with the LoRA (`lora`, also when "
        "left out), or, under `train` alone, the model without it (`base`): policy and reference then differ at step 0.",
    )
    alpha: float | None = Field(
        default=None,
        gt=0,
        description="LoRA scale numerator of the layers whose file does not say it. A file of PEFT's without its "
        "`adapter_config.json` needs it; for others it is their rank when left out, so the scale is 1.",
    )

    @model_validator(mode="after")
    def _what_is_merged_is_initial(self) -> Self:
        if self.mode == "merge" and self.initial == "base":
            raise misfit(
                "start.initial base is the model without the LoRA, which start.mode merge adds to it", "initial"
            )
        return self

    def resolved(self) -> "StartSpec":
        """The same with its default written out."""
        return self.model_copy(update={"initial": self.initial or "lora"})


def lora_label(source: StoredLora | CheckpointSource | HubLora | LocalLora) -> str:
    """What people call it: the id, the repository and file, or the path."""
    match source:
        case StoredLora(id=found) | CheckpointSource(id=found):
            return found
        case HubLora(repo_id=repo_id, file=file):
            return f"{repo_id}/{file}"
        case LocalLora(path=path):
            return path
        case _:
            assert_never(source)
