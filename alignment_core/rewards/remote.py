"""Scores by a server elsewhere, for rewards whose packages or hardware do not fit here.

    request   POST {"images": [base64 of a PNG, ...], "prompts": [str, ...]}
    answer    200  {"scores": [number, ...]}, one an image, higher is better

`docs/rewards.md` has the headers that sign a request, and `docs/reward_server.py` a server.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from numpy import ndarray
from PIL import Image

from alignment_core.errors import AlignmentError
from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample

Ask = Callable[[Mapping[str, Any]], Any]


class Remote:
    """The server's scores of 8-bit images `round(255 x)`, `batch_size` at a time; float32 [B], not differentiable.

    `ask` sends the JSON and gives back the answer's. Raises `AlignmentError("remote_reward_invalid")` for an answer
    that is not one number an image.
    """

    differentiable = False

    def __init__(self, ask: Ask, batch_size: int) -> None:
        self._ask = ask
        self._batch_size = batch_size

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        pixels = (255 * images.detach().float()).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        scores: list[float] = []
        for start in range(0, len(pixels), self._batch_size):
            rows = slice(start, start + self._batch_size)
            content = {"images": [_png(image) for image in pixels[rows]], "prompts": list(prompts[rows])}
            scores += _scores(self._ask(content), len(content["images"]))
        return torch.tensor(scores, dtype=torch.float32, device=images.device)


def _png(pixels: ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _scores(answer: Any, num_images: int) -> list[float]:
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != num_images or any(type(s) not in (int, float) for s in scores):
        raise AlignmentError(
            "remote_reward_invalid", f'a remote reward must answer {{"scores": [...]}} with {num_images} numbers'
        )
    try:
        return [float(score) for score in scores]
    except OverflowError as error:
        raise AlignmentError("remote_reward_invalid", "a remote reward gave a number that is too large") from error
