"""Prompts of online methods, read once each: what is kept is what reading them again would give."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignment_core.families.trained_encoders import WithTrainedEncoders
from alignment_core.load.online import OnlineMethod
from alignment_core.rollouts.known_prompts import KnownPrompts
from alignment_core.training.run import Run
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.rollouts.test_online import METHODS, PROMPTS, online_spec

BYTES_OF_ONE = 4 * 4


class Reader:
    """Says of a prompt its letters, and counts what it was asked and how often the encoders came."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.uses = 0

    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append(list(prompts))
        return {"text": torch.tensor([[float(ord(letter)) for letter in prompt] for prompt in prompts])}

    def reading(self) -> "Reader":
        self.uses += 1
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def known(reader: Reader, kept: int = 10) -> KnownPrompts:
    return KnownPrompts(reader, reader.reading, device=torch.device("cpu"), kept_bytes=kept * BYTES_OF_ONE)


def test_a_prompt_is_read_once_by_itself_and_rows_come_in_their_order() -> None:
    reader = Reader()
    encode = known(reader)
    first, again = encode(["blue", "pink", "blue"]), encode(["grey", "pink"])
    assert reader.asked == [["blue"], ["pink"], ["grey"]]
    assert reader.uses == 2
    assert torch.equal(first["text"], Reader()(["blue", "pink", "blue"])["text"])
    assert torch.equal(again["text"], Reader()(["grey", "pink"])["text"])
    encode(["grey", "blue"])
    assert reader.uses == 2


def test_no_more_is_kept_than_there_is_room_for() -> None:
    reader = Reader()
    encode = known(reader, kept=2)
    for _ in range(3):
        encode(["blue", "pink", "grey"])
    assert reader.asked == [["blue"], ["pink"], ["grey"], ["grey"], ["grey"]]


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Run:
    return loaded(online_spec(tiny_model, METHODS["ddpo"]), tmp_path)


def conditioning(run: Run, iteration: int) -> tuple[Sequence[str], dict[str, Tensor]]:
    assert isinstance(run.method, OnlineMethod)
    rollouts = run.method.setup.rollout_batch(run.actors, iteration, 4)
    return rollouts.prompts, rollouts.conditioning


def test_a_run_reads_each_of_its_prompts_once_and_to_the_bit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    encode = run.family.encode_prompts
    monkeypatch.setattr(run.family, "encode_prompts", lambda prompts: read.extend(prompts) or encode(prompts))
    drawn = [conditioning(run, iteration) for iteration in range(6)]
    assert sorted(filter(None, read)) == sorted(PROMPTS)  # and none, once for either part of guidance
    for prompts, found in drawn:
        assert torch.equal(found["prompt_embeds"], encode(prompts)["prompt_embeds"])


def test_text_encoders_that_are_trained_read_at_every_use(tiny_model: Path, tmp_path: Path) -> None:
    adapter = {"type": "lora", "rank": 4, "text_encoder": {}}
    run = loaded(online_spec(tiny_model, METHODS["ddpo"], adapter=adapter), tmp_path)
    assert isinstance(run.family, WithTrainedEncoders)
    assert isinstance(run.method, OnlineMethod)
    _, before = conditioning(run, 0)
    assert set(before) == {"input_ids"}
    batch = next(islice(run.method.batches(run.actors, run.timesteps, 0), 1))
    run.method.loss(run.actors, batch).per_example.sum().backward()  # pyright: ignore[reportArgumentType]
    _, trained = run.actors.trainable_parts()
    assert any(one.grad is not None and bool(one.grad.any()) for one in trained.values())
