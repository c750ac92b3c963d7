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
# What is said of fields that hold an id or a name, where what it stands for is chosen from a list.
CHOSEN: Mapping[tuple[str, ...], str] = {
    ("method", "dataset", "id"): "The pictures that it learns from: those uploaded here whose check found them sound.",
    ("model", "name"): "The model that is trained, of those that this server has.",
    (
        "method",
        "prompts",
    ): "It learns from pictures that it draws of these: a file that was uploaded, or at most 100,000 lines of your own. "
    "Each iteration takes the next ones, shuffled.",
    (
        "evaluation",
        "prompts",
    ): "Prompts that nothing is trained on, to compare before and after: a file that was uploaded, or at most 10,000 lines of your own. "
    "Left empty: those of the validation split.",
}
CHOSEN_OF_A_REWARD: Mapping[tuple[str, ...], str] = {
    ("weights", "name"): "The reward's weights, of those that this server has.",
    ("model", "name"): "The model that scores, of those that this server has.",
    ("processor", "name"): "The model whose preparation of pictures and texts is used, of those that this server has.",
}
LEFT_EMPTY = {
    ("evaluation", "prompts"): "left empty: prompts of the validation split",
    ("adapter", "target_modules"): "left empty: the attention layers that the model's family is tuned at",
}


def chosen_about(path: tuple[str, ...]) -> str:
    """What is said of a field where its value is chosen by name; empty where nothing is said but what its schema says."""
    return CHOSEN.get(path, "") or (CHOSEN_OF_A_REWARD.get(path[-2:], "") if len(path) > 2 else "")


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
