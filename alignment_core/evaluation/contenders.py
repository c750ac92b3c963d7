"""The two sides of a comparison: the initial model, the policy as it stands, or the policy of a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.checkpoints import STATE, Manifest, read_manifest
from alignment_core.evaluation.policy_drift import Predict
from alignment_core.evaluation.weight_change import initial_norms, weight_deltas
from alignment_core.families.family import Family
from alignment_core.protocols import Sampler
from alignment_core.reports import ComparedModel
from alignment_core.shapes import Images, Latents, Times

Draw = Callable[[nn.Module, Sequence[str], Sequence[int]], Images]


@dataclass(frozen=True)
class Contender:
    """A model that draws and predicts; how its trained weights differ from the initial model's, by name, on the CPU.

    `conditioning` is what `predict` needs of prompts.
    """

    model: ComparedModel
    sample: Sampler
    predict: Predict
    conditioning: Callable[[Sequence[str]], dict[str, Tensor]]
    deltas: Callable[[], dict[str, Tensor]]
    initial_norms: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Contenders:
    """The two sides of a comparison."""

    base: Contender
    policy: Contender


def initial_model(family: Family, actors: Actors, draw: Draw) -> Contender:
    """The model that the run started from."""

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        with actors.initial_denoiser() as denoiser:
            return draw(denoiser, prompts, seeds)

    model = ComparedModel(label="initial model", step=None, spec_sha256=None)
    return Contender(model, sample, actors.predict_initial, family.sampling_conditioning, dict, dict)


def policy_as_it_is(family: Family, actors: Actors, draw: Draw, model: ComparedModel) -> Contender:
    """The policy with the weights that it has now."""
    return Contender(
        model,
        lambda prompts, seeds: draw(actors.denoiser, prompts, seeds),
        lambda x_t, times, conditioning: actors.predict_with(None, x_t, times, conditioning),
        family.sampling_conditioning,
        lambda: weight_deltas(actors),
        lambda: initial_norms(actors),
    )


def checkpointed_policy(family: Family, actors: Actors, draw: Draw, folder: Path, label: str) -> Contender:
    """The policy of a checkpoint, which need not be the one that `actors` has when it is asked to draw.

    Its weights are read now and put in place before each use, so two of them can share one set of actors.
    """
    family.load_policy(actors, folder)
    kept = {name: parameter.detach().clone() for name, parameter in _own_parameters(actors).items()}
    as_it_is = policy_as_it_is(family, actors, draw, compared_model(read_manifest(folder), label))

    @torch.no_grad()
    def put() -> None:
        for name, parameter in _own_parameters(actors).items():
            parameter.copy_(kept[name])

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        put()
        return as_it_is.sample(prompts, seeds)

    def predict(x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        put()
        return as_it_is.predict(x_t, times, conditioning)

    def deltas() -> dict[str, Tensor]:
        put()
        return as_it_is.deltas()

    return Contender(as_it_is.model, sample, predict, as_it_is.conditioning, deltas, as_it_is.initial_norms)


def _own_parameters(actors: Actors) -> dict[str, nn.Parameter]:
    """What tells one policy from another: every weight of a fine-tune, every factor of a LoRA, trained or not."""
    everything = dict(actors.denoiser.named_parameters())
    match actors.kind:
        case "full":
            return everything
        case "lora":
            return {name: one for name, one in everything.items() if ".lora_" in name}
        case _:
            assert_never(actors.kind)


def compared_model(manifest: Manifest, label: str) -> ComparedModel:
    """What a report says of a checkpoint: its step, its run, and every file but the training state by hash."""
    return ComparedModel(
        label=label,
        step=manifest.step,
        spec_sha256=manifest.spec_sha256,
        files=[file for file in manifest.files if not file.path.startswith(f"{STATE}/")],
    )
