"""The caption grammar of the demo world: 6 colours, 4 shapes, 5 positions and 3 sizes.

    a [small|big] <color> <shape> [on the left|on the right|at the top|at the bottom]

All 360 captions are split once, by a hash of their text, into captions that the model is trained
on and captions that it is only ever evaluated on.
"""

import hashlib
import itertools
from dataclasses import dataclass

COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "big")
POSITION_PHRASES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
POSITIONS = tuple(POSITION_PHRASES)
HELD_OUT_PERCENT = 15


@dataclass(frozen=True)
class Caption:
    """What one image shows; `None` leaves an attribute unnamed, so the renderer is free."""

    color: str
    shape: str
    position: str | None = None
    size: str | None = None

    @property
    def text(self) -> str:
        """The caption in words, such as "a big red circle on the left"."""
        words = ["a", self.size, self.color, self.shape]
        if self.position is not None:
            words.append(POSITION_PHRASES[self.position])
        return " ".join(word for word in words if word is not None)

    @property
    def held_out(self) -> bool:
        """Whether the caption is kept from training, by a hash of its text."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return int.from_bytes(digest[:8], "big") % 100 < HELD_OUT_PERCENT


def all_captions() -> list[Caption]:
    """The 360 captions, in a fixed order."""
    grid = itertools.product(COLORS, SHAPES, (None, *POSITIONS), (None, *SIZES))
    return [Caption(color, shape, position, size) for color, shape, position, size in grid]


def train_captions() -> list[Caption]:
    """The captions that the demo model is trained on."""
    return [caption for caption in all_captions() if not caption.held_out]


def held_out_captions() -> list[Caption]:
    """The captions that the demo model never sees in training: the evaluation prompts."""
    return [caption for caption in all_captions() if caption.held_out]


def parse_caption(text: str) -> Caption:
    """The caption that reads `text`. Raises ValueError if the grammar has no such sentence."""
    for caption in all_captions():
        if caption.text == text:
            return caption
    raise ValueError(f"not a caption of the demo world: {text!r}")
