"""Recorded forwards and backwards: the numbers of running plainly, to the bit, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignment_core.actors.replay import Launch, Plainly, Recorder, Recording, Recordings
from alignment_core.training.run import Run
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.tiny import tiny_spec

NARROW, WIDE = (2, 3), (4, 3)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 3)


def of(net: nn.Module, recorder: Recorder) -> Recordings:
    return Recordings(recorder, list(net.parameters()))


def ask(recordings: Recordings, net: nn.Linear, x: Tensor, name: str = "policy") -> Tensor:
    return recordings.predict(name, net, [x], with_gradient=True)


def gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def test_forward_and_added_up_gradients_are_those_of_running_plainly() -> None:
    plain, recorded = network(), network()
    recordings = of(recorded, Plainly())
    for _ in range(3):
        x = torch.randn(WIDE)
        one, other = plain(x), ask(recordings, recorded, x)
        assert torch.equal(one, other)
        for y in (one, other):
            y.square().mean().backward()
    assert all(map(torch.equal, gradients(plain), gradients(recorded)))
    assert recordings.take_trouble() is None


def test_what_was_given_is_not_overwritten_by_the_next_forward() -> None:
    net = network()
    recording = Recording(net, [], [torch.zeros(NARROW)], Plainly())
    first = recording([torch.ones(NARROW)])
    before = first.clone()
    recording([torch.full(NARROW, 5.0)])
    assert torch.equal(first, before)
    assert not first.requires_grad


def test_shapes_and_networks_are_recorded_apart_and_few_of_them() -> None:
    class Counting(Plainly):
        times = 0

        def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
            self.times += 1
            return super().record(forward, backward)

    recorder, net = Counting(), network()
    recordings = of(net, recorder)
    for shape in (WIDE, WIDE, NARROW, WIDE, *[(size, 3) for size in range(5, 9)]):
        assert torch.equal(ask(recordings, net, torch.ones(shape)), net(torch.ones(shape)))
    assert recorder.times == 4
    recordings.forget()
    ask(recordings, net, torch.ones(WIDE))
    assert recorder.times == 5


def test_asking_again_before_the_backward_is_a_mistake_that_shows() -> None:
    net = network()
    recording = Recording(net, list(net.parameters()), [torch.zeros(NARROW)], Plainly())
    first = recording([torch.ones(NARROW)])
    recording([torch.ones(NARROW)])
    with pytest.raises(AssertionError, match="asked again before its backward"):
        first.sum().backward()


def test_what_cannot_be_recorded_is_run_plainly_and_told() -> None:
    class Failing:
        def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
            raise RuntimeError("operation not permitted when stream is capturing")

    net = network()
    recordings = of(net, Failing())
    for _ in range(2):
        assert torch.equal(ask(recordings, net, torch.ones(WIDE)), net(torch.ones(WIDE)))
    assert recordings.take_trouble() == "RuntimeError: operation not permitted when stream is capturing"
    assert recordings.take_trouble() is None


def test_a_batch_without_room_is_run_plainly_and_a_smaller_one_is_recorded() -> None:
    class Cramped(Plainly):
        def __init__(self) -> None:
            self.shapes: list[torch.Size] = []

        def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
            if len(self.shapes) == 0:
                self.shapes.append(torch.Size(WIDE))
                raise torch.OutOfMemoryError("no room")
            self.shapes.append(torch.Size(NARROW))
            return super().record(forward, backward)

    net, recorder = network(), Cramped()
    recordings = of(net, recorder)
    for shape in (WIDE, WIDE, NARROW, NARROW):
        assert torch.equal(ask(recordings, net, torch.ones(shape)), net(torch.ones(shape)))
    assert recorder.shapes == [torch.Size(WIDE), torch.Size(NARROW)]
    assert recordings.take_trouble() is None


def trained(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    losses: list[Tensor] = []
    for number, batch in enumerate(run.method.batches(run.actors, run.timesteps, 0)):
        loss = run.method.loss(run.actors, batch).per_example
        loss.mean().backward()
        losses.append(loss.detach())
        if number % 2:  # two micro-batches a step
            run.optimizer.step()
            run.optimizer.zero_grad()
        if number == 5:
            break
    return losses, [parameter.detach() for parameter in run.actors.trainable().values()]


@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
def test_a_recorded_run_is_the_plain_one(
    adapter: dict[str, Any], tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter)
    plain, recorded = loaded(spec, tmp_path), loaded(spec, tmp_path)
    recorded.actors.record_with(Plainly())
    found, expected = trained(recorded), trained(plain)
    for one, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, one, other))
    assert recorded.actors.take_recording_trouble() is None
