"""Every method, as Attune is asked for it and as the plain implementation does it: one turn of each, and how both are compared."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment_core import JobSpec
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.model import family_of_source
from alignment_core.load.run import load_run
from alignment_core.methods.diffusion_kto import DiffusionKTO
from alignment_core.methods.draws import micro_batches
from alignment_core.spec import LocalSource
from alignment_core.spec.places import Sources
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import train
from alignment_core.training.run import Run
from benchmarks.step import plain_online
from benchmarks.step.plain import Draws, Example, Plain, dpo, kto, mapo
from benchmarks.step.plain_online import Step, Walk
from benchmarks.step.random_models import PROMPTS
from benchmarks.step.sizes import Size

# Small, as nothing that is timed depends on them: at 5000 float32's rounding of an error near 1 is 1e-4 of the logit.
BETA = {"sd": 100.0, "sdxl": 10.0, "sd3": 10.0}
NUM_STEPS, NUM_TRAINED, GUIDANCE = 20, 5, 5.0
KTO_BETA, MAPO_SCALE, ONLINE_BETA, CLAMP = 50.0, 100.0, 0.1, 0.1
OFFLINE = ("diffusion_dpo", "diffusion_kto", "mapo")
CACHED: dict[str, Any] = {"reference_cache": {"draws": 1}}


@dataclass(frozen=True)
class Case:
    """A row of the benchmark: the ratio it should reach on a CPU, and the one that saved forwards alone would give (`docs/performance.md`)."""

    name: str
    method: str
    is_full: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    by_flops: float | None = None

    @property
    def is_online(self) -> bool:
        return self.method not in OFFLINE

    @property
    def steps_a_turn(self) -> int:
        """Attune's optimiser steps in one turn: what the plain implementation does at once."""
        return NUM_TRAINED if self.is_online else 1

    def is_of(self, size: Size) -> bool:
        """Whether the plain implementation has it: as published, online methods walk a U-Net's schedule."""
        return not (self.is_online and size.kind == "sd3")

    def batch_size(self, size: Size) -> int:
        if self.is_online:
            return size.prompts
        return (2 if size.batch_size == 1 else 8) if self.method == "diffusion_kto" else size.batch_size


CASES = (
    Case("diffusion_dpo, LoRA", "diffusion_dpo", target=1.6, by_flops=1.44),
    Case("diffusion_dpo, full", "diffusion_dpo", is_full=True, target=1.4, by_flops=1.34),
    Case("diffusion_dpo, LoRA, reference_cache", "diffusion_dpo", training=CACHED, target=2.2, by_flops=2.11),
    Case(
        "diffusion_dpo, full, reference_cache",
        "diffusion_dpo",
        is_full=True,
        training=CACHED,
        target=1.9,
        by_flops=1.79,
    ),
    Case("tailorpo, LoRA", "tailorpo", target=2.2, by_flops=1.45),
    Case("diffusion_kto, LoRA", "diffusion_kto", by_flops=1.44),
    Case("mapo, LoRA", "mapo", by_flops=1.63),
    Case("d3po, LoRA", "d3po"),
    Case("ddpo, LoRA", "ddpo"),
    Case("dpok, LoRA", "dpok"),
)


def spec_of(case: Case, size: Size, model: Path, pairs: Path, precision: str) -> JobSpec:
    """What Attune is asked for; without a report, so that nothing but steps is measured."""
    return JobSpec.model_validate(
        {
            "model": {"type": "local", "path": str(model)},
            "method": _method_of(case, size, pairs),
            "adapter": {"type": "full"} if case.is_full else {"type": "lora", "rank": 8},
            "training": {
                "steps": 100_000,
                "batch_size": case.batch_size(size),
                "gradient_accumulation_steps": 1,
                "learning_rate": 1e-6,
                "validation_fraction": 0.0,
                "precision": precision,
                **case.training,
            },
        }
    )


def _method_of(case: Case, size: Size, pairs: Path) -> dict[str, Any]:
    if not case.is_online:
        fixed = {
            "diffusion_kto": {"caption_dropout": 0.0, "beta": KTO_BETA},
            "diffusion_dpo": {"beta": BETA[size.kind]},
            "mapo": {"logit_scale": MAPO_SCALE},
        }
        return {"type": case.method, "dataset": {"type": "local", "path": str(pairs)}, **fixed[case.method]}
    drawn = {"prompts": PROMPTS, "num_inference_steps": NUM_STEPS, "guidance_scale": GUIDANCE}
    replayed = {**drawn, "prompts_per_iteration": size.prompts}
    brightness = {"type": "brightness"}
    match case.method:
        case "tailorpo":
            own = {**drawn, "rewards": [brightness], "num_trained_steps": NUM_TRAINED}
        case "d3po":
            own = {**replayed, "rewards": [brightness], "num_trained_steps": NUM_TRAINED}
        case "ddpo":
            own = {**replayed, "reward": brightness, "num_trained_steps": NUM_TRAINED, "ratio_clamp": CLAMP}
        case "dpok":
            own = {**replayed, "reward": brightness, "updates_per_iteration": NUM_TRAINED, "buffer_iterations": 1}
            own["ratio_clamp"] = CLAMP
        case _:
            raise ValueError(f"no such method: {case.method}")
    return {"type": case.method, **own}


def load(spec: JobSpec, cache_dir: Path) -> Run:
    """Attune's run, its images and captions in the cache."""
    assert isinstance(spec.model, LocalSource)
    spec, found = spec.resolved(family_of_source(spec.model)), []

    def last() -> Iterator[object]:
        found.append((yield from load_run(spec, Sources(), new_accelerator(spec), cache_dir)))

    list(last())
    return found[0]


def steps_of(run: Run) -> Iterator[object]:
    """Attune's own loop, step by step."""
    return train(
        actors=run.actors,
        method=run.method,
        batches=run.method.batches(run.actors, run.timesteps, 0),
        reference=run.reference,
        timesteps=run.timesteps,
        tally=TimestepTally(run.family.path.num_timesteps),
        optimizer=run.optimizer,
        accelerator=run.accelerator,
        learning_rate_at=run.learning_rate_at,
        max_grad_norm=1.0,
        first_step=0,
        total_steps=run.spec.training.steps,
    )


# --- the plain implementation's turn -------------------------------------------------------------------------------


def examples_of(case: Case, pairs: Sequence[dict[str, Any]], indices: Sequence[int]) -> list[Example]:
    """The rows of a batch as they lie on disk; for Diffusion-KTO a pair is a like and then a dislike."""
    if case.method == "diffusion_kto":
        sides = [(index // 2, ("chosen", "rejected")[index % 2]) for index in indices]
        return [Example((pairs[row][side],), pairs[row]["prompt"]) for row, side in sides]
    rows = [pairs[index] for index in indices]
    return [Example((row["chosen"], row["rejected"]), row["prompt"]) for row in rows]


def offline_loss(case: Case, plain: Plain, examples: Sequence[Example], liked: Tensor, draws: Draws | None) -> Tensor:
    """The loss of a batch."""
    m, r = plain.errors(examples, draws, with_reference=case.method != "mapo")
    match case.method:
        case "diffusion_dpo":
            return dpo(m, r, BETA[plain.model.kind])
        case "diffusion_kto":
            return kto(m, r, liked, KTO_BETA)
        case "mapo":
            return mapo(m, 0.1, 0.5, MAPO_SCALE)
        case _:
            raise ValueError(f"no such method: {case.method}")


def brightness(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3))


def plain_turn(case: Case, size: Size, plain: Plain, pairs: Sequence[dict[str, Any]]) -> Callable[[], None]:
    """One turn: a step of an offline method, an iteration of an online one."""
    num = case.batch_size(size)
    if not case.is_online:
        examples = examples_of(case, pairs, range(num))
        liked = torch.arange(num, device=plain.device) % 2 == 0
        return lambda: plain.update(offline_loss(case, plain, examples, liked, None))
    walk, shape = Walk(plain, NUM_STEPS, GUIDANCE), (4, size.resolution // 8, size.resolution // 8)
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(num)]
    trained = [number * NUM_STEPS // NUM_TRAINED for number in range(NUM_TRAINED)]
    replayed: dict[str, Any] = {"num_trained": NUM_TRAINED, "batch_size": num, "shape": shape}
    match case.method:
        case "tailorpo":
            of_trained = {"trained": trained, "shape": shape, "beta": ONLINE_BETA}
            return partial(plain_online.tailorpo_iteration, walk, prompts, brightness, **of_trained)
        case "d3po":
            return partial(plain_online.d3po_iteration, walk, prompts, brightness, beta=ONLINE_BETA, **replayed)
        case "ddpo":
            loss = partial(_ddpo, walk)
            return partial(plain_online.policy_gradient_iteration, walk, prompts, brightness, loss, **replayed)
        case "dpok":
            loss = partial(_dpok, walk)
            return partial(plain_online.policy_gradient_iteration, walk, prompts, brightness, loss, **replayed)
        case _:
            raise ValueError(f"no such method: {case.method}")


def _ddpo(walk: Walk, step: Step, old: Tensor, advantage: Tensor) -> Tensor:
    return plain_online.ddpo(walk, step, old, advantage, CLAMP)


def _dpok(walk: Walk, step: Step, old: Tensor, advantage: Tensor) -> Tensor:
    return plain_online.dpok(walk, step, old, advantage, ratio_clamp=CLAMP, reward=10.0, kl=0.01)


# --- the same numbers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far Attune's loss and gradient are from the plain ones: relative to the size of an example's loss, and to the gradient's norm."""

    loss: float
    gradient: float


def agreement(case: Case, run: Run, plain: Plain, pairs: Sequence[dict[str, Any]]) -> Agreement:
    """Both from the same weights, on the same draws."""
    same_weights(run, plain)
    (batch,) = islice(run.method.batches(run.actors, run.timesteps, 0), 1)
    losses = run.method.loss(run.actors, batch).per_example
    ours = losses.mean()  # of DDPO's advantages it may be nothing
    if case.is_online:
        theirs = _online_loss(case, run, plain, batch)
    else:
        theirs = _offline_loss_of(case, run, plain, pairs, batch)
    found = [
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(of.values()))])
        for loss, of in ((ours, run.actors.trainable()), (theirs, plain.trained))
    ]
    gap = float((found[0] - found[1]).norm() / found[1].norm())
    return Agreement(float((ours - theirs).detach().abs() / losses.detach().abs().mean()), gap)


@torch.no_grad()
def same_weights(run: Run, plain: Plain) -> None:
    """The policy a little away from the reference, in both."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in run.actors.trainable().items():
        scale = 0.02 if ".lora_B." in name else 1e-3 * float(parameter.abs().mean())
        parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.device)
        plain.trained[name].copy_(parameter)


def _offline_loss_of(case: Case, run: Run, plain: Plain, pairs: Sequence[dict[str, Any]], batch: Any) -> Tensor:
    """Of the images that Attune drew, at its noise and timesteps."""
    method, name = run.method, "kto" if case.method == "diffusion_kto" else "dpo"
    if isinstance(method, DiffusionKTO):
        layout, data = method, method.images
    else:
        layout, data = method.draws, method.draws.pairs  # pyright: ignore[reportAttributeAccessIssue]
    (drawn,) = islice(micro_batches(layout, name, run.timesteps, layout._indices, data, 0), 1)
    images = 1 if name == "kto" else 2
    noise = torch.stack([torch.randn((1 + images, *batch.eps.shape[1:]), generator=one) for one in drawn.generators])
    posterior = torch.cat([noise[:, 1 + place] for place in range(images)]).to(plain.device)
    liked = batch.liked if name == "kto" else torch.empty(0)
    draws = Draws(posterior, batch.eps, batch.timesteps)
    return offline_loss(case, plain, examples_of(case, pairs, drawn.indices), liked, draws)


def _online_loss(case: Case, run: Run, plain: Plain, batch: Any) -> Tensor:
    """Of the very states that Attune drew."""
    walk = Walk(plain, NUM_STEPS, GUIDANCE)

    def step(of: Any, x_prev: Tensor) -> Step:
        t = torch.tensor(walk.timesteps)[of.index].to(plain.device)
        text = plain.captions([of.rollouts.prompts[row] for row in of.rows])
        return Step(of.x_t, x_prev, t, text, plain.captions([""]))

    match case.method:
        case "tailorpo":
            winner, loser = step(batch, batch.x_w), step(batch, batch.x_l)
            return plain_online.tailorpo(walk, winner, loser, (batch.weight > 0).float(), ONLINE_BETA)
        case "d3po":
            of_0, of_1 = (step(side, side.x_prev) for side in (batch.of_0, batch.of_1))
            return plain_online.d3po(walk, of_0, of_1, batch.h, ONLINE_BETA, CLAMP)
        case "ddpo":
            return _ddpo(walk, step(batch.steps, batch.steps.x_prev), batch.steps.log_prob, batch.advantage)
        case "dpok":
            return _dpok(walk, step(batch.steps, batch.steps.x_prev), batch.steps.log_prob, batch.advantage)
        case _:
            raise ValueError(f"no such method: {case.method}")
