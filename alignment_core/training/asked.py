"""What is asked of a run while it goes on: a checkpoint, a picture, a probe, after the next step.

Whoever runs it puts a file for each request into `asked/` of the work folder, and may put it there again until it has heard the answer: a
request is answered once a process. Nothing that the run knows of itself is changed by one: a probe is in no curve, chooses no best
checkpoint and wakes no guard.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from alignment_core.errors import DivergenceError
from alignment_core.evaluation.compare import plan_comparison
from alignment_core.evaluation.contenders import initial_model
from alignment_core.evaluation.draw_and_judge import Judges, draw_and_judge
from alignment_core.evaluation.evaluate import choose_prompts
from alignment_core.evaluation.files import save_png
from alignment_core.evaluation.grid import Headline, draw_grid, places_in_grid
from alignment_core.evaluation.probe import HeldOutProbe
from alignment_core.events import Action, ActionAnswered, Event, PhaseChanged, SamplesDrawn
from alignment_core.spec.counted import counted
from alignment_core.training.loop import finite
from alignment_core.training.run import Run

ASKED, PICTURES = "asked", "samples"
NO_PROMPTS = "the run has no evaluation prompts to draw"
NO_REWARDS = "the run has no evaluation rewards to judge by"

Doing = Generator[Event, None, ActionAnswered]


class Request(BaseModel):
    """`id` is the asker's, and comes back with the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    action: Action


@dataclass
class Asked:
    """Where requests are put, what they are answered with, and those that this process has answered."""

    workdir: Path
    probe: HeldOutProbe | None
    answered: set[str] = field(default_factory=set)

    def waiting(self) -> list[Request]:
        """Requests that were not answered, by their ids; a file that is half written is found at the next look."""
        found = [_read(path) for path in sorted((self.workdir / ASKED).glob("*.json"))]
        return [request for request in found if request is not None and request.id not in self.answered]

    def answer(self, run: Run, save: Callable[[], Iterator[Event]]) -> Iterator[Event]:
        """Answer everything that waits; all processes of a run do so after the same step. `save` makes a checkpoint of it."""
        for request in run.ranks.of_first(self.waiting):
            self.answered.add(request.id)
            yield (yield from self._answer(run, request, save))

    def _answer(self, run: Run, request: Request, save: Callable[[], Iterator[Event]]) -> Doing:
        said = ActionAnswered(id=request.id, action=request.action, step=run.state.step)
        try:
            match request.action:
                case "checkpoint":
                    yield from save()
                    return said
                case "sample":
                    return (yield from self._sample(run, said))
                case "probe":
                    return (yield from self._probe(run, said))
                case _:
                    assert_never(request.action)
        except DivergenceError as error:
            return said.model_copy(update={"refused": error.message})
        except torch.OutOfMemoryError as error:
            if run.ranks.count > 1:  # the others wait in it
                raise
            return said.model_copy(update={"refused": f"it does not fit beside the training: {error}".split("\n")[0]})

    def _sample(self, run: Run, said: ActionAnswered) -> Doing:
        evaluation = run.spec.evaluation
        prompts = choose_prompts(run.evaluation_prompts, evaluation.max_prompts)[: evaluation.grid_prompts]
        if not prompts:
            return said.model_copy(update={"refused": NO_PROMPTS})
        plan = plan_comparison(
            prompts,
            seeds_per_prompt=evaluation.seeds_per_prompt,
            batch_size=evaluation.batch_size,
            grid_prompts=len(prompts),
            seed=run.spec.seed,
        )
        yield from _drawing(run)
        models = {
            "base model": initial_model(run.family, run.actors, run.draw).sample,
            "policy model": lambda texts, seeds: run.draw(run.actors.denoiser, texts, seeds),
        }
        base, policy = yield from draw_and_judge(models, plan, Judges({}), run.ranks)
        yield PhaseChanged(phase="training")
        path = self.workdir / PICTURES / f"step-{said.step:08d}.png"
        title = Headline(
            "Base and aligned model", f"Same prompt and noise in each pair; after {counted(said.step, 'step')}."
        )
        run.ranks.in_first(lambda: save_png(draw_grid(prompts, base.images, policy.images, title), path))
        places = places_in_grid(prompts, plan.seeds, base.images)
        yield SamplesDrawn(step=said.step, path=path.relative_to(self.workdir).as_posix(), prompts=prompts, grid=places)
        return said

    def _probe(self, run: Run, said: ActionAnswered) -> Doing:
        if self.probe is None:
            return said.model_copy(update={"refused": NO_REWARDS if run.evaluation_prompts else NO_PROMPTS})
        yield from _drawing(run)
        found = yield from self.probe.measure(said.step)
        yield PhaseChanged(phase="training")
        return said.model_copy(update={"metrics": finite(found.metrics())})


def _drawing(run: Run) -> Iterator[Event]:
    run.actors.forget_recordings()  # drawing needs the memory
    yield PhaseChanged(phase="sampling")


def _read(path: Path) -> Request | None:
    try:
        return Request.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
