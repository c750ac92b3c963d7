r"""Diffusion-KTO: alignment by single images that were liked or disliked, without pairs.

Li et al., "Aligning Diffusion Models by Optimizing Human Utility", arXiv 2404.04465. With g the reference's less the policy's
mean squared regression error on an image at a (t, eps) of its own, s = 1 for a like and -1 for a dislike,

    z = s beta (g - Q),        L = mean w_y [1 - U(z)],        U = sigma,        Q = max(0, mean g) without gradient.

`docs/methods.md` has the other baselines Q and utilities U.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.datasets.ahead import read_ahead
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.diffusion.formulas import regression_error
from alignment_core.methods.draws import (
    MicroBatch,
    dropped_conditioning,
    examples_per_step,
    micro_batches,
    on_device,
    sent,
)
from alignment_core.methods.order import Blocks, indices_of_step
from alignment_core.methods.pair_batches import NoisyInputs
from alignment_core.methods.reference_errors import ReferenceErrors, Visits
from alignment_core.protocols import Predictions, StepLoss, TimestepStrategy
from alignment_core.shapes import Latents, PerExample, Times, Timesteps

Baseline = Literal["batch_mean", "class_mean", "mismatched"]
Utility = Literal["sigmoid", "loss_averse"]
Liked = Bool[Tensor, " batch"]
Scalar = Float[Tensor, ""]
AddUp = Callable[[Tensor], Tensor]


# --- the loss ------------------------------------------------------------------------------------------------------


def kto_logit(g: PerExample, baseline: Scalar, liked: Liked, beta: float) -> PerExample:
    """z = s beta (g - Q); positive when a like is modelled better than the baseline, or a dislike worse."""
    sign = liked.to(g.dtype) * 2 - 1
    return sign * beta * (g - baseline)


def utility_loss(z: PerExample, utility: Utility) -> PerExample:
    """1 - U(z): with U = sigma(z), or U = log sigma(z), which never tires of what is badly wrong."""
    match utility:
        case "sigmoid":
            return torch.sigmoid(-z)
        case "loss_averse":
            return 1 - F.logsigmoid(z)
        case _:
            assert_never(utility)


def batch_mean(g: PerExample, add_up: AddUp) -> Scalar:
    """max(0, mean g) over every process's examples; `add_up` sums a tensor over the processes. Without gradient."""
    total = add_up(torch.stack([g.detach().sum(), torch.ones_like(g).sum()]))
    return (total[0] / total[1]).clamp(min=0)


def class_mean(g: PerExample, liked: Liked, add_up: AddUp) -> Scalar:
    """The mean of the mean over likes and the mean over dislikes; a class that is absent counts as 0. Not clamped."""
    classes = torch.stack([liked, ~liked]).to(g.dtype)
    total = add_up(torch.stack([(classes * g.detach()).sum(dim=1), classes.sum(dim=1)]))
    return (total[0] / total[1].clamp(min=1)).mean()


# --- the batch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageBatch:
    """Judged images as latents `[B, C, h, w]`, each with a noise and a timestep of its own.

    `conditioning` is the prompt's; `image_conditioning` is what the networks are told of the image beside it. `visits` says
    which of its image's own draws each is, where those are of a fixed number.
    """

    x_0: Latents
    eps: Latents
    timesteps: Timesteps
    reward_scale: PerExample
    conditioning: dict[str, Tensor]
    liked: Liked
    image_conditioning: dict[str, Tensor] = field(default_factory=dict)
    visits: Visits | None = None

    def sent_to(self, device: torch.device) -> "ImageBatch":
        """The same on the device, but for what is asked of the host."""
        return ImageBatch(
            x_0=sent(self.x_0, device),
            eps=sent(self.eps, device),
            timesteps=sent(self.timesteps, device),
            reward_scale=sent(self.reward_scale, device),
            conditioning=on_device(self.conditioning, device),
            liked=sent(self.liked, device),
            image_conditioning=on_device(self.image_conditioning, device),
            visits=self.visits,
        )


@dataclass(frozen=True)
class ImageForward:
    """What the networks were given and should say, and the errors of policy (m), reference (r) and initial model (i).

    No predictions are told where the reference was not asked: nothing but what moves it reads them.
    """

    inputs: NoisyInputs
    target: Latents
    m: PerExample
    r: PerExample
    i: PerExample
    predictions: Predictions | None


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiffusionKTO:
    """Diffusion-KTO over judged images: `protocols.Method[ImageBatch]`.

    Each image of a step is a like with `like_probability`; None visits every image once an epoch instead, in `blocks` if given. Steps are
    cut up as `StepLayout` says, and `reference_errors` are as for Diffusion-DPO. Q is that of a micro-batch over all processes, so it changes with accumulation; `add_up` sums over the processes.
    """

    images: JudgedImages
    beta: float
    baseline: Baseline
    utility: Utility
    like_weight: float
    dislike_weight: float
    like_probability: float | None
    caption_dropout: float
    batch_size: int
    accumulation: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    add_up: AddUp = torch.Tensor.clone
    num_draws: int | None = None
    blocks: Blocks | None = None
    reference_errors: ReferenceErrors | None = None

    @property
    def num_examples(self) -> int:
        return len(self.images)

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[ImageBatch]:
        """Micro-batches from `first_step` on, without end."""
        drawn = micro_batches(self, "kto", timesteps, self._indices, self.images, first_step)
        made = (self._batch(timesteps, one) for one in drawn)
        for batch in read_ahead(made) if self.images.are_cached else made:
            yield batch.sent_to(actors.family.device)

    def loss(self, actors: Actors, batch: ImageBatch) -> StepLoss:
        """The loss of each image, float32 `[B]`, and the metrics of `docs/methods.md`."""
        forward = self._forward(actors, batch)
        m, r, i = forward.m, forward.r, forward.i
        baseline = self._baseline(actors, batch, r - m, forward, actors.predict_reference)
        z = kto_logit(r - m, baseline, batch.liked, self.beta)
        weight = torch.where(batch.liked, self.like_weight, self.dislike_weight).to(z.dtype)
        per_example = weight * utility_loss(batch.reward_scale * z, self.utility)
        metrics = {"loss": per_example.detach(), **kto_metrics(m.detach(), r, z.detach(), batch.liked)}
        metrics |= {
            "margin_unscaled": metrics["margin"] / self.beta,
            "reward_magnitude": self.beta * (r - m.detach()).abs(),
            "kl_baseline": baseline.expand_as(z),
        }
        signal_vs_initial = None
        predictions = forward.predictions
        if actors.reference_moves and predictions is not None:
            against = self._baseline(actors, batch, i - m, forward, actors.predict_initial)
            z_init = kto_logit(i - m.detach(), against, batch.liked, self.beta)
            metrics |= {
                **kto_metrics_vs_init(m.detach(), i, z_init, batch.liked),
                "ref_drift_batch_eps_dist": predictions.distance(predictions.reference, predictions.initial),
            }
            signal_vs_initial = z_init / self.beta
        return StepLoss(
            per_example,
            batch.timesteps,
            signal=metrics["margin_unscaled"],
            metrics=metrics,
            signal_vs_initial=signal_vs_initial,
            predictions=predictions,
        )

    def asking_anew(self, batch: ImageBatch) -> "tuple[DiffusionKTO, ImageBatch]":
        return replace(self, reference_errors=None), batch

    def _forward(self, actors: Actors, batch: ImageBatch) -> ImageForward:
        path, t = actors.family.path, batch.timesteps
        conditioning = {**batch.conditioning, **batch.image_conditioning}
        inputs = (path.noisy(batch.x_0, batch.eps, t), path.time(t), conditioning)
        target = path.target(batch.x_0, batch.eps, t)
        if self.reference_errors is not None:
            assert batch.visits is not None, "errors are remembered by the draw"
            (r,) = self.reference_errors.of(
                batch.visits, lambda: regression_error(actors.predict_reference(*inputs), target)[:, None]
            ).unbind(dim=1)
            return ImageForward(inputs, target, regression_error(actors.predict_policy(*inputs), target), r, r, None)
        reference = actors.predict_reference(*inputs)
        predictions = Predictions(
            *inputs,
            policy=actors.predict_policy(*inputs),
            reference=reference,
            initial=actors.predict_initial(*inputs) if actors.reference_moves else reference,
            logit_scale=self.beta,
            eps_scale=path.eps_scale(t),
        )
        said = (predictions.policy, predictions.reference, predictions.initial)
        m, r, i = (regression_error(yhat, target) for yhat in said)
        return ImageForward(inputs, target, m, r, i, predictions)

    def _baseline(
        self,
        actors: Actors,
        batch: ImageBatch,
        g: PerExample,
        forward: ImageForward,
        predict: Callable[[Latents, Times, dict[str, Tensor]], Latents],
    ) -> Scalar:
        """Q against the model that `predict` asks; without gradient."""
        match self.baseline:
            case "batch_mean":
                return batch_mean(g, self.add_up)
            case "class_mean":
                return class_mean(g, batch.liked, self.add_up)
            case "mismatched":
                others = {name: value.roll(1, dims=0) for name, value in batch.conditioning.items()}
                conditioning = {**others, **batch.image_conditioning}  # an image's own stays under another's prompt
                inputs = (*forward.inputs[:2], conditioning)
                with torch.no_grad():
                    policy, other = actors.predict_policy(*inputs), predict(*inputs)
                gap = regression_error(other, forward.target) - regression_error(policy, forward.target)
                total = self.add_up(torch.stack([gap.sum(), torch.ones_like(gap).sum()]))
                return total[0] / total[1]
            case _:
                assert_never(self.baseline)

    def _indices(self, step: int, draws: torch.Generator) -> list[int]:
        num = examples_per_step(self)
        if self.like_probability is None:
            return indices_of_step(len(self.images), num, step, self.seed, self.blocks)
        likes = (torch.rand(num, generator=draws) < self.like_probability).tolist()
        places = torch.rand(num, generator=draws, dtype=torch.float64).tolist()
        kinds = [self.images.likes if like else self.images.dislikes for like in likes]
        return [kind[int(place * len(kind))] for kind, place in zip(kinds, places, strict=True)]

    def _batch(self, timesteps: TimestepStrategy, drawn: MicroBatch) -> ImageBatch:
        """Draw a posterior sample and a noise for each image; on the host."""
        images = self.images.batch(drawn.indices, drawn.generators)
        noise = torch.stack([torch.randn((2, *images.mean.shape[1:]), generator=one) for one in drawn.generators])
        return ImageBatch(
            x_0=images.mean + images.std * noise[:, 1],
            eps=noise[:, 0],
            timesteps=drawn.timesteps,
            reward_scale=timesteps.reward_scale(drawn.timesteps),
            conditioning=dropped_conditioning(images.conditioning, self.images.empty_conditioning, drawn.dropped),
            liked=images.liked,
            image_conditioning=dict(images.image_conditioning),
            visits=drawn.visits,
        )


def kto_metrics(m: PerExample, r: PerExample, z: PerExample, liked: Liked) -> dict[str, PerExample]:
    """Per-image metrics; those of likes alone are NaN for dislikes, and the other way round."""
    nothing = torch.full_like(m, torch.nan)
    return {
        "implicit_accuracy": half_tied(z),
        "margin": z,
        "like_share": liked.to(m.dtype),
        "chosen_error": torch.where(liked, m, nothing),
        "rejected_error": torch.where(liked, nothing, m),
        "chosen_gain": torch.where(liked, r - m, nothing),
        "rejected_gain": torch.where(liked, nothing, r - m),
        "winner_degraded": torch.where(liked, (m > r).to(m.dtype), nothing),
    }


def kto_metrics_vs_init(m: PerExample, i: PerExample, z_init: PerExample, liked: Liked) -> dict[str, PerExample]:
    """The same against the initial model, where the reference moves: a guard asks them whether both errors rise."""
    against = kto_metrics(m, i, z_init, liked)
    return {
        "margin_vs_init": against["margin"],
        "accuracy_vs_init": against["implicit_accuracy"],
        "chosen_gain_vs_init": against["chosen_gain"],
        "rejected_gain_vs_init": against["rejected_gain"],
    }


def half_tied(z: PerExample) -> PerExample:
    """1 where z > 0, 0 where z < 0, 1/2 at 0."""
    return (z > 0).float() + 0.5 * (z == 0).float()
