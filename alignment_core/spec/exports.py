"""The forms that a checkpoint can be had in, and for which models: one table, for the API, the client and the exporters."""

from collections.abc import Mapping
from typing import Literal

from alignment_core.spec.families import FamilyName

ExportFormat = Literal["peft", "diffusers", "kohya", "merged", "single_file"]
CheckpointKind = Literal["lora", "full"]

OF_A_LORA: tuple[ExportFormat, ...] = ("peft", "diffusers", "kohya", "merged", "single_file")
OF_A_WHOLE_MODEL: tuple[ExportFormat, ...] = ("diffusers", "merged", "single_file")

EXPORTS: Mapping[FamilyName, Mapping[CheckpointKind, tuple[ExportFormat, ...]]] = {
    "sd": {"lora": OF_A_LORA, "full": OF_A_WHOLE_MODEL},
    "sdxl": {"lora": OF_A_LORA, "full": OF_A_WHOLE_MODEL},
    "sd3": {"lora": OF_A_LORA, "full": OF_A_WHOLE_MODEL},
    "flux": {"lora": OF_A_LORA, "full": OF_A_WHOLE_MODEL},
}
"""`docs/exports.md` shows it, and a test compares the two."""

ONE_FILE: Mapping[ExportFormat, str] = {"kohya": "lora.safetensors", "single_file": "model.safetensors"}
"""What is downloaded as one file, and its name beside the model card; the other formats are folders."""

CARD = "README.md"
REPORT_FILE = "report.json"


def refusal(format: ExportFormat, kind: CheckpointKind) -> str | None:
    """Why there is no such form of such a checkpoint, as a sentence; None where there is one, which is so for every family."""
    if kind == "full" and format not in OF_A_WHOLE_MODEL:
        return f"a full fine-tune has no LoRA that {format} could hold; ask for {_listed(OF_A_WHOLE_MODEL)}"
    return None


def _listed(formats: tuple[ExportFormat, ...]) -> str:
    return f"{', '.join(formats[:-1])} or {formats[-1]}"
