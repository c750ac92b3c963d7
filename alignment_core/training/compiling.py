"""`training.compile`: whether a run's steps are compiled, told with what speaks for and against it, and compiled before they are timed.

Both are found with the first batch, in passes whose gradients are dropped. What was decided is kept in checkpoints: a run that goes
on rounds as it began.
"""

import time
from collections.abc import Generator
from typing import Any

import torch

from alignment_core.actors.actors import Actors
from alignment_core.actors.compiled_blocks import counted_graphs, missing_compiler
from alignment_core.costs.compiling import pays, saved_seconds
from alignment_core.costs.rates import rates_of_card
from alignment_core.events import CompilingWeighed, Event, PhaseChanged, WarningRaised
from alignment_core.protocols import Method, Remembering
from alignment_core.training.run import Run

BACKEND = "inductor"


def may_compile(run: Run) -> bool:
    """Whether there is anything to decide."""
    spec = run.spec
    return spec.training.compile != "off" and spec.resources.strategy == "ddp" and run.is_compiled is not False


def compile_for(run: Run, batch: Any) -> Generator[Event, None, None]:
    """Decide, and compile what `batch` needs of the steps that follow; what one process cannot do, none does."""
    if (lack := _any(run, missing_compiler(run.accelerator.device))) is not None:
        run.is_compiled = False
        yield _unavailable(lack)
        return
    if run.is_compiled is None:
        weighed = weigh(run, batch)
        yield weighed
        run.is_compiled = weighed.is_compiled
    if not run.is_compiled:
        return
    yield PhaseChanged(phase="compiling")
    with run.accelerator.no_sync(run.actors.trained):
        trouble = warm_up(run.actors, run.method, batch)
    trouble = _any(run, trouble)
    yield PhaseChanged(phase="training")
    if trouble is not None:
        run.actors.compile_no_more()
        run.is_compiled = False
        yield _unavailable(trouble)


def weigh(run: Run, batch: Any) -> CompilingWeighed:
    """The seconds of a step as it is, of those to come, against those of compiling; the first process's clock decides for all."""
    with run.accelerator.no_sync(run.actors.trained):
        with counted_graphs(run.actors.networks()) as graphs:
            pass_once(run.actors, run.method, batch)  # kernels are chosen, and memory is taken, before it is timed
        started = time.monotonic()
        pass_once(run.actors, run.method, batch)
        if run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
    of_step = (time.monotonic() - started) * run.split.accumulation
    to_come = of_step * (run.state.total_steps - run.state.step)
    compiling = len(graphs) / _graphs_a_second(run)
    wanted = run.spec.training.compile == "on" or pays(compiling, to_come)
    return CompilingWeighed(
        is_compiled=run.ranks.of_first(lambda: wanted),
        num_graphs=len(graphs),
        compiling_seconds=compiling,
        saved_seconds=saved_seconds(to_come),
    )


def warm_up(actors: Actors, method: Method[Any], batch: Any) -> str | None:
    """Compile by a pass; returns why it could not be done, after which everything runs plainly."""
    actors.compile_with(BACKEND)
    try:
        with actors.compiled():
            pass_once(actors, method, batch)
    except torch.OutOfMemoryError:  # which a smaller micro-batch may help
        raise
    except RuntimeError as error:  # whatever a compiler's trouble is, the run needs none
        actors.compile_no_more()
        drop_gradients(actors)
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return None


def pass_once(actors: Actors, method: Method[Any], batch: Any) -> None:
    """A forward and a backward of a batch, as a step has them, and nothing of it stays."""
    if isinstance(method, Remembering):
        method, batch = method.asking_anew(batch)
    method.loss(actors, batch).per_example.mean().backward()
    drop_gradients(actors)


def drop_gradients(actors: Actors) -> None:
    for parameter in actors.trainable().values():
        parameter.grad = None


def _graphs_a_second(run: Run) -> float:
    device = run.accelerator.device
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else None
    return rates_of_card(name, is_gpu=is_gpu, is_half=run.precision != "fp32")["compiling"].expected


def _any(run: Run, trouble: str | None) -> str | None:
    """The trouble of the first process that has one."""
    return next((one for one in run.ranks.everywhere(lambda: trouble) if one is not None), None)


def _unavailable(why: str) -> WarningRaised:
    return WarningRaised(
        code="compile_unavailable", message=f"blocks could not be compiled, so that each runs plainly: {why}"
    )
