"""One control of the form of a spec, and what it is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.web.spec_schema import Kind

OUT_OF_PLACE: Mapping[tuple[str, ...], str] = {  # what says too little where its group is not around it
    ("adapter", "rank"): "LoRA rank",
    ("evaluation", "rewards"): "Rewards of the report",
    ("evaluation", "prompts"): "Held-out prompts",
    ("method", "dataset"): "Data set",
    ("method", "dataset", "id"): "Which data set",
    ("method", "prompts"): "Prompts to train on",
    ("model", "name"): "Which model",
}
TITLES = {
    "id": "Id",
    "lora": "LoRA",
    "d3po": "D3PO",
    "ema": "EMA",
    "alias": "a champion, or another name",
    "catalog": "offered by this server",
    "checkpoint": "a checkpoint of a job",
    "hub": "from the Hugging Face Hub",
    "local": "a path on the server",
    "single_file": "one file on the server",
    "stored": "uploaded here",
    "aesthetic": "LAION aesthetic",
    "clip_score": "CLIP score",
    "hpsv2": "HPSv2",
    "hpsv2.1": "HPSv2.1",
    "image_reward": "ImageReward",
    "jpeg_size": "JPEG size",
    "pick_score": "PickScore",
}
LEFT_EMPTY = {
    ("evaluation", "prompts"): "left empty: prompts of the validation split",
    ("adapter", "target_modules"): "left empty: the attention layers that the model's family is tuned at",
}


@dataclass(frozen=True)
class Control:
    """One control, or a group of them; `value` is text as it stands there, `picked` the prompt set that stands for lines."""

    path: tuple[str, ...]
    kind: Kind
    value: str = ""
    picked: str = ""
    choices: Sequence[tuple[str, str]] = ()
    about: str = ""
    limits: str = ""
    placeholder: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: Sequence["Control"] = ()
    is_nullable: bool = False
    is_on: bool = True
    is_required: bool = False
    is_changed: bool = False

    @property
    def id(self) -> str:
        return "-".join(("field", *self.path))

    @property
    def name(self) -> str:
        return ".".join(("f", *self.path))

    @property
    def pointer(self) -> str:
        return "/" + "/".join(self.path)

    @property
    def is_item(self) -> bool:
        """Whether it is a place in a list."""
        return self.path[-1].isdecimal()

    @property
    def num_changed(self) -> int:
        """How many of its controls do not stand at their defaults."""
        own = self.kind not in ("group", "items") and self.is_changed and not self.is_required
        return own + sum(one.num_changed for one in self.children)

    @property
    def label(self) -> str:
        if self.path in OUT_OF_PLACE:
            return OUT_OF_PLACE[self.path]
        last = self.path[-1]
        if self.is_item:
            return f"{self.path[-2].removesuffix('s').replace('_', ' ').capitalize()} {int(last) + 1}"
        return TITLES.get(last, last.replace("_", " ").capitalize())
