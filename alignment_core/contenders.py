"""The two sides of a comparison: the initial model, the policy as it stands, or the policy of a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alignment_core.actors import Actors
from alignment_core.checkpoints import STATE, Manifest, read_manifest
from alignment_core.evaluation.policy_drift import Predict
from alignment_core.evaluation.weight_change import initial_norms, weight_deltas
from alignment_core.families.sd_weights import load_policy
from alignment_core.protocols import Images, Latents, Sampler, Timesteps
from alignment_core.reports import ComparedModel

Draw = Callable[[nn.Module, Sequence[str], Sequence[int]], Images]


@dataclass(frozen=True)
class Contender:
    """A model that draws and predicts, and how its trained weights differ from the initial model's, by name, on the CPU."""

    told: ComparedModel
    sample: Sampler
    predict: Predict
    deltas: Callable[[], dict[str, Tensor]]
    initial_norms: Callable[[], dict[str, float]]


def initial_model(actors: Actors, draw: Draw) -> Contender:
    """The model that the run started from."""

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        with actors.initial_denoiser() as denoiser:
            return draw(denoiser, prompts, seeds)

    told = ComparedModel(label="initial model", step=None, spec_sha256=None)
    return Contender(told, sample, actors.predict_initial, dict, dict)


def policy_as_it_is(actors: Actors, draw: Draw, told: ComparedModel) -> Contender:
    """The policy with the weights that it has now."""
    return Contender(
        told,
        lambda prompts, seeds: draw(actors.denoiser, prompts, seeds),
        lambda x_t, timesteps, conditioning: actors.predict_with(None, x_t, timesteps, conditioning),
        lambda: weight_deltas(actors),
        lambda: initial_norms(actors),
    )


def checkpointed_policy(actors: Actors, draw: Draw, folder: Path, label: str | None = None) -> Contender:
    """The policy of a checkpoint, which need not be the one that `actors` has when it is asked to draw.

    Its weights are read now and put in place before each use, so two of them can share one set of actors.
    """
    load_policy(actors, folder)
    kept = {name: parameter.detach().clone() for name, parameter in actors.trainable().items()}

    def put() -> None:
        with torch.no_grad():
            for name, parameter in actors.trainable().items():
                parameter.copy_(kept[name])

    def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        put()
        return draw(actors.denoiser, prompts, seeds)

    def predict(x_t: Latents, timesteps: Timesteps, conditioning: dict[str, Tensor]) -> Latents:
        put()
        return actors.predict_with(None, x_t, timesteps, conditioning)

    def deltas() -> dict[str, Tensor]:
        put()
        return weight_deltas(actors)

    return Contender(told_of(read_manifest(folder), label), sample, predict, deltas, lambda: initial_norms(actors))


def told_of(manifest: Manifest, label: str | None = None) -> ComparedModel:
    """What a report says of a checkpoint: its step, its run, and every file but the training state by hash."""
    return ComparedModel(
        label=label or f"step {manifest.step}",
        step=manifest.step,
        spec_sha256=manifest.spec_sha256,
        files=[file for file in manifest.files if not file.path.startswith(f"{STATE}/")],
    )
