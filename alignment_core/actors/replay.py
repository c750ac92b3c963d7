"""A network's forward and backward at one shape, recorded once and replayed: CUDA graphs, behind a recorder that is plain on a CPU.

A step of Stable Diffusion launches some 7,500 kernels, and below sixteen pairs a GPU waits for the CPU that launches them. What is
recorded reads its inputs from tensors that stay where they are, launches the same kernels and gives the same numbers, to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Launch = Callable[[], None]
Predict = Callable[..., Tensor]


@runtime_checkable
class Recorder(Protocol):
    """`record(forward, backward)`: two functions that do the same again; `backward` follows a forward, and may be None."""

    def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]: ...


class Plainly:
    """Does it again by doing it again."""

    def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
        forward()
        return forward, backward


WARM_UPS = 3  # kernels are chosen, and libraries take their workspaces, before anything is recorded


class CudaGraphs:
    """Records kernels as CUDA graphs, which share two pools of memory: one of those with a backward, one of the rest.

    Graphs of a pool write over each other's intermediate results. Of those without a backward nothing is left to be written over.
    """

    def __init__(self) -> None:
        self._with_backward, self._without = (torch.cuda.graph_pool_handle() for _ in range(2))

    def record(self, forward: Launch, backward: Launch | None) -> tuple[Launch, Launch | None]:
        pool = self._without if backward is None else self._with_backward
        side, cached = torch.cuda.Stream(), torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)  # a weight that was cast outside the graph would stay as it is now
        try:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    forward()
                    if backward is not None:
                        backward()
            torch.cuda.current_stream().wait_stream(side)
            return self._captured(forward, pool), None if backward is None else self._captured(backward, pool)
        finally:
            torch.set_autocast_cache_enabled(cached)

    def _captured(self, launch: Launch, pool: Any) -> Launch:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            launch()
        return graph.replay


@dataclass
class Turns:
    """How many forwards with a backward were launched: a backward follows the last of them, or has it made again."""

    number: int = 0


class Recording:
    """One network at one shape; `parameters` are those that its backward gives gradients of, none without a backward.

    Recordings of one recorder share `turns`.
    """

    def __init__(
        self,
        predict: Predict,
        parameters: Sequence[nn.Parameter],
        inputs: Sequence[Tensor],
        recorder: Recorder,
        turns: Turns,
    ) -> None:
        self._inputs = [value.detach().clone() for value in inputs]
        self.parameters = list(parameters)
        self._output = torch.empty(0)
        self._weight = torch.empty(0)
        self._gradients: list[Tensor | None] = []
        self._turns = turns

        def forward() -> None:
            with torch.set_grad_enabled(bool(self.parameters)):
                self._output = predict(*self._inputs)
            if self._weight.shape != self._output.shape:
                self._weight = torch.zeros_like(self._output)

        def backward() -> None:
            found = torch.autograd.grad(self._output, self.parameters, self._weight, allow_unused=True)
            self._gradients = list(found)

        self._forward, self._backward = recorder.record(forward, backward if self.parameters else None)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The prediction for inputs of the recorded shapes, in memory of its own."""
        if not self.parameters:
            return self.run_forward(inputs)
        return _Replayed.apply(self, list(inputs), *self.parameters)  # pyright: ignore[reportReturnType]

    def run_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        if self._backward is not None:
            self._turns.number += 1
        self._forward()
        return self._output.detach().clone()

    def run_backward(self, turn: int, inputs: Sequence[Tensor], weight: Tensor) -> list[Tensor | None]:
        """The gradients of the forward of `turn`, in memory of their own: autograd adds into what it is given.

        What other forwards have written over since is made again: weights change after the last backward alone.
        """
        assert self._backward is not None, "recorded with a backward"
        if turn != self._turns.number:
            self.run_forward(inputs)
        self._weight.copy_(weight)
        self._backward()
        return [None if gradient is None else gradient.clone() for gradient in self._gradients]

    @property
    def turn(self) -> int:
        """That of the last forward."""
        return self._turns.number


class _Replayed(torch.autograd.Function):
    """A recorded forward whose backward is the recorded one."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, inputs: list[Tensor], *parameters: Tensor) -> Tensor:
        output = recording.run_forward(inputs)
        ctx.recording, ctx.inputs, ctx.turn = recording, inputs, recording.turn
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, *ctx.recording.run_backward(ctx.turn, ctx.inputs, weight)


# Of a run's own shapes: the policy's with a gradient and without, the initial model's, each in steps and beside them, those of a last batch.
MOST_RECORDINGS = 8


class Recordings:
    """The recordings of a run by network and shape. When one fails, everything is run plainly from then on."""

    def __init__(self, recorder: Recorder, trained: Sequence[nn.Parameter]) -> None:
        self._recorder = recorder
        self._trained = trained
        self._turns = Turns()
        self._known: dict[tuple[object, ...], Recording] = {}
        self._too_large: set[tuple[object, ...]] = set()
        self._has_failed = False
        self._trouble: str | None = None

    def predict(self, name: str, predict: Predict, inputs: Sequence[Tensor], *, with_gradient: bool) -> Tensor:
        """`predict(*inputs)` by the network called `name`, with the gradient of what is trained where that is wanted."""
        key = (name, with_gradient, *[(value.shape, value.dtype) for value in inputs])
        if key not in self._known:
            if self._has_failed or key in self._too_large or len(self._known) == MOST_RECORDINGS:
                return predict(*inputs)
            try:
                trained = self._trained if with_gradient else ()
                self._known[key] = Recording(predict, trained, inputs, self._recorder, self._turns)
            except torch.OutOfMemoryError:  # run plainly it may fit, and a smaller batch may be recorded yet
                self.forget()
                self._too_large.add(key)
                return predict(*inputs)
            except RuntimeError as error:
                self.forget()
                self._has_failed, self._trouble = True, f"{type(error).__name__}: {error}"
                return predict(*inputs)
        return self._known[key](inputs)

    def take_trouble(self) -> str | None:
        """Why something could not be recorded; said once."""
        trouble, self._trouble = self._trouble, None
        return trouble

    def forget(self) -> None:
        """Give back the memory that recordings hold; what is asked next is recorded anew."""
        self._known.clear()
