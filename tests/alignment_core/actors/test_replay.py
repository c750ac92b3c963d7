"""Recorded forwards and backwards: the numbers of running plainly, to the bit, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignment_core.actors.compiled_blocks import CompiledSwitch
from alignment_core.actors.replay import MOST_RECORDINGS, Launch, Plainly, Recorder, Recording, Recordings, Turns
from alignment_core.training.run import Run
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
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
    recording = Recording(net, [], [torch.zeros(NARROW)], Plainly(), Turns())
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
    for shape in (WIDE, WIDE, NARROW, WIDE, *[(size, 3) for size in range(5, 5 + MOST_RECORDINGS)]):
        assert torch.equal(ask(recordings, net, torch.ones(shape)), net(torch.ones(shape)))
    assert recorder.times == MOST_RECORDINGS
    recordings.forget()
    ask(recordings, net, torch.ones(WIDE))
    assert recorder.times == MOST_RECORDINGS + 1


class OneMemory(Plainly):
    """As graphs of one pool are: a forward with a backward writes over what others have left for theirs."""

    def __init__(self) -> None:
        self.times = 0
        self._left: Launch | None = None

    def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
        self.times += 1
        if backward is None:
            return super().record(forward, backward)

        def launch() -> None:
            forward()
            self._left = backward

        def follow() -> None:
            assert self._left is backward, "it was written over"
            self._left = None
            backward()

        launch()
        return launch, follow


def test_a_forward_that_others_wrote_over_is_made_again_for_its_backward() -> None:
    plain, recorded = network(), network()
    recordings = of(recorded, OneMemory())
    inputs = [torch.randn(shape) for shape in (WIDE, NARROW, WIDE)]
    ours = [ask(recordings, recorded, x) for x in inputs]
    theirs = [plain(x) for x in inputs]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        for y in (one, other):
            y.square().mean().backward()
    assert all(map(torch.equal, gradients(plain), gradients(recorded)))


def test_without_a_gradient_a_recording_of_its_own_leaves_what_waits_for_its_backward() -> None:
    plain, recorded, recorder = network(), network(), OneMemory()
    recordings, x = of(recorded, recorder), torch.randn(WIDE)
    y = ask(recordings, recorded, x)
    for _ in range(2):
        drawn = recordings.predict("policy", recorded, [x + 1], with_gradient=False)
        assert not drawn.requires_grad
        assert torch.equal(drawn, plain(x + 1))
    y.sum().backward()
    plain(x).sum().backward()
    assert all(map(torch.equal, gradients(plain), gradients(recorded)))
    assert recorder.times == 2


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


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("tailorpo_g", "ddpo", "dpok")]


@pytest.mark.parametrize("name", ["tailorpo", "d3po", *SLOW])
def test_a_recorded_run_that_draws_its_own_data_is_the_plain_one(name: str, tiny_model: Path, tmp_path: Path) -> None:
    plain, recorded = (loaded(online_spec(tiny_model, METHODS[name]).resolved(), tmp_path) for _ in range(2))
    recorder = OneMemory()
    recorded.actors.record_with(recorder)
    found, expected = trained(recorded), trained(plain)
    for one, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, one, other))
    assert recorded.actors.take_recording_trouble() is None
    assert (
        2 <= recorder.times <= MOST_RECORDINGS
    )  # draws, the policy's updates, and the reference's forwards, where there are some


def test_a_reference_that_moves_and_a_full_fine_tune_are_recorded_too(tiny_model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"adapter": {"type": "full"}, "reference": {"type": "hard_copy"}}
    plain, recorded = (
        loaded(online_spec(tiny_model, METHODS["d3po"], **changes).resolved(), tmp_path) for _ in range(2)
    )
    recorded.actors.record_with(OneMemory())
    found, expected = trained(recorded), trained(plain)
    for one, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, one, other))


def test_what_runs_plainly_is_not_replayed_as_it_was_compiled(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    run, recorder = loaded(tiny_spec(tiny_model, tiny_pairs), tmp_path), OneMemory()
    run.actors.record_with(recorder)
    run.actors._compiled = CompiledSwitch()  # of blocks that compile nothing
    batch = next(run.method.batches(run.actors, run.timesteps, 0))
    with run.actors.compiled():
        run.method.loss(run.actors, batch).per_example.mean().backward()
    assert recorder.times == 2
    with torch.no_grad():
        run.method.loss(run.actors, batch)
    assert recorder.times == 4
