r"""TailorPO and TailorPO-G: preferences between two candidates for the next state, drawn from one x_t.

Tailoring preference optimisation to diffusion's steps, arXiv 2502.01667. Winner and loser are ranked by the reward of the image
that the model foresees from each, at its own timestep. Since both come from one x_t, the log-ratios differ by an inner product:

    M = (x^w - x^l)^T (mu_theta(x_t) - mu_ref(x_t)) / sigma_t^2,        L = -log sigma(beta M)

which needs one forward of each network and cancels nothing. The winner is the next state. TailorPO-G lets it climb the
reward's gradient first. `docs/methods.md` has the choices that the paper leaves open.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.formulas import Reduction, beta_of_means, reduced
from alignment_core.methods.d3po import clamped_log_ratio
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.ranks import Ranks
from alignment_core.rollouts.rollout import Guided, Indices, branch, index_of, preference, walk
from alignment_core.rollouts.setup import (
    PendingRollouts,
    RolloutBatch,
    RolloutSetup,
    accuracy,
    metrics_vs_init,
    own_chunks,
    reference_metrics,
    spread,
)
from alignment_core.rollouts.step_choice import draw_items
from alignment_core.rollouts.trajectories import trained_share
from alignment_core.seeds import generator_of
from alignment_core.shapes import Latents, PerExample, PerStep, Timesteps

# --- the loss ------------------------------------------------------------------------------------------------------


def branching_margin(
    x_w: Latents, x_l: Latents, mu: Latents, mu_ref: Latents, sigma_t: PerExample, reduction: Reduction = "mean"
) -> PerExample:
    """M = (x^w - x^l)^T (mu - mu_ref) / sigma_t^2, or that divided by D; float32, or float64 if given that."""
    wide = torch.promote_types(mu.dtype, torch.float32)
    product = ((x_w - x_l).to(wide) * (mu.to(wide) - mu_ref.to(wide))).flatten(1)
    return reduced(product, reduction) / sigma_t.to(wide).square()


def clamped_margin(
    x_w: Latents,
    x_l: Latents,
    mu: Latents,
    mu_ref: Latents,
    sigma_t: PerExample,
    ratio_clamp: float,
    reduction: Reduction = "mean",
) -> PerExample:
    """M of two ratios that are each clamped to 1 +- `ratio_clamp`, as D3PO's are: no gradient of a ratio outside.

    log pi_theta(x)/pi_ref(x) = (mu - mu_ref)^T (2 x - mu - mu_ref) / (2 sigma_t^2), an inner product as well.
    """
    log_ratios = [branching_margin(x, 0.5 * (mu + mu_ref), mu, mu_ref, sigma_t, reduction) for x in (x_w, x_l)]
    return clamped_log_ratio(log_ratios[0], ratio_clamp) - clamped_log_ratio(log_ratios[1], ratio_clamp)


def margin_loss(margin: PerExample, beta: float | PerExample) -> PerExample:
    """-log sigma(beta M)."""
    return -F.logsigmoid(beta * margin)


# --- guidance ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardGuidance:
    """TailorPO-G's step sizes and aim; not `through_network` holds the noise that the network foresees fixed."""

    eta_min: float
    eta_max: float
    delta: float
    through_network: bool = True

    def eta(self, index: int, num_steps: int) -> float:
        """Cosine in the step number T - index: `eta_min` at the noisiest step, towards `eta_max` at the image."""
        number = num_steps - index
        return self.eta_min + 0.5 * (self.eta_max - self.eta_min) * (1 + math.cos(math.pi * number / num_steps))


def climb(x: Latents, reward: Callable[[Latents], PerExample], eta: float, delta: float) -> tuple[Latents, PerExample]:
    """x - eta grad (r_high - r(x))^2 with r_high = r(x) + delta held fixed, which is x + 2 eta delta grad r(x); and r(x).

    With a target that moves along the gradient would be 0.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        score = reward(x)
        (gradient,) = torch.autograd.grad((score.detach() + delta - score).square().sum(), x)
    return (x - eta * gradient).detach(), score.detach()


# --- the batch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BranchBatch:
    """Two candidates of each prompt from one x_t.

    `weight` makes the mean over the step one over the prompts that were decided; ties weigh 0. `metrics` are of the draw.
    `policy` is the prediction that the candidates were drawn around, with its gradient, where that was kept.
    """

    rollouts: RolloutBatch
    rows: Sequence[int]
    x_t: Latents
    x_w: Latents
    x_l: Latents
    index: Indices
    timesteps: Timesteps
    reward_scale: PerExample
    weight: PerExample
    metrics: dict[str, PerExample]
    policy: Latents | None = None


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TailorPO:
    """TailorPO over a set of prompts: `protocols.Method[BranchBatch]`.

    An iteration is one trajectory of each of `batch_size` x `accumulation` prompts; it takes an optimiser step at each of
    `num_trained_steps` steps, and goes on with the policy that the step made. The steps are evenly spaced from the noisiest on,
    or drawn anew for each iteration where the timestep strategy wants some more than others.
    """

    setup: RolloutSetup
    beta: float
    reduction: Reduction
    num_trained_steps: int
    guidance: RewardGuidance | None
    ratio_clamp: float | None
    batch_size: int
    accumulation: int
    pending: PendingRollouts = field(default_factory=PendingRollouts)

    @property
    def trained(self) -> list[int]:
        """Indices of the branching steps. For T = 20 and 5 they are the steps 20, 16, 12, 8 and 4, counted down."""
        total = len(self.setup.grid)
        return [number * total // self.num_trained_steps for number in range(self.num_trained_steps)]

    def trained_in(self, iteration: int, wanted: PerStep | None) -> list[int]:
        """The branching steps of an iteration."""
        if wanted is None:
            return self.trained
        trainable = self.setup.grid.trainable
        draws = generator_of(self.setup.seed, "branches", iteration)
        return sorted(trainable[place] for place in draw_items(wanted[trainable], self.num_trained_steps, draws))

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """How often each step is among those that train."""
        if wanted is not None:
            return trained_share(self.setup.grid, self.num_trained_steps, wanted)
        share = torch.zeros(len(self.setup.grid), dtype=torch.float64)
        share[self.trained] = 1 / self.num_trained_steps
        return share

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[BranchBatch]:
        """Micro-batches from `first_step` on, without end; each step's candidates are of the policy that it finds."""
        step, ranks = first_step, self.setup.ranks
        num = self.batch_size * self.accumulation * ranks.count
        rollouts: RolloutBatch | None = None
        while True:
            iteration, position = divmod(step, self.num_trained_steps)
            trained = self.trained_in(iteration, timesteps.step_probabilities)
            if rollouts is None or position == 0:
                rollouts = self.setup.rollout_batch(actors, iteration, num)
            parts = own_chunks(range(num), self.accumulation, ranks)
            x = rollouts.start(range(num)) if position == 0 else self.pending.at(step)["x"].to(actors.family.device)
            begun = 0 if position == 0 else trained[position - 1] + 1
            draw = partial(self._draw, rollouts, x, parts, range(begun, trained[position]), timesteps)
            batches = ranks.together(draw)
            goes_on = position + 1 < len(trained)
            x_w = _in_order(ranks, [batch.x_w.cpu() for batch in batches])
            decided = _in_order(ranks, [batch.weight.cpu() for batch in batches])
            self.pending.keep(step + 1, {"x": x_w} if goes_on else {})
            yield from share_weights(batches, decided)
            step += 1

    def loss(self, actors: Actors, batch: BranchBatch) -> StepLoss:
        """The loss of each prompt, float32 `[B]`; prompts whose candidates tie lose nothing and have no gradient."""
        grid = self.setup.grid
        predictions = batch.rollouts.predictions(
            batch.rows,
            batch.x_t,
            batch.index,
            logit_scale=beta_of_means(self.beta, batch.x_t, self.reduction),
            policy=batch.policy,
        )
        mu, mu_ref = (grid.mean(batch.x_t, yhat, batch.index) for yhat in (predictions.policy, predictions.reference))
        sigma = grid.sigma(batch.index, batch.x_t)
        margin = self._margin(batch, mu, mu_ref)
        trained = margin if self.ratio_clamp is None else self._clamped(batch, mu, mu_ref, self.ratio_clamp)
        per_example = batch.weight * margin_loss(trained, self.beta * batch.reward_scale)
        detached = margin.detach()
        moved = (mu - mu_ref).detach().flatten(1).square().mean(dim=1).sqrt() / sigma
        metrics = {
            "loss": per_example.detach(),
            "implicit_accuracy": accuracy(detached),
            "margin": self.beta * detached,
            "margin_unscaled": detached,
            "mean_shift": moved,
            "kl": 0.5 * moved.square(),
            **batch.metrics,
        }
        vs_initial = None
        if actors.reference_moves:
            vs_initial = self._margin(batch, mu, grid.mean(batch.x_t, predictions.initial, batch.index)).detach()
            metrics |= metrics_vs_init(vs_initial, self.beta) | reference_metrics(predictions, len(detached))
        return StepLoss(
            per_example, batch.timesteps, detached, metrics, signal_vs_initial=vs_initial, predictions=predictions
        )

    def asking_anew(self, batch: BranchBatch) -> "tuple[TailorPO, BranchBatch]":
        return self, replace(batch, policy=None)

    def _margin(self, batch: BranchBatch, mu: Latents, mu_of_other: Latents) -> PerExample:
        sigma = self.setup.grid.sigma(batch.index, batch.x_t)
        return branching_margin(batch.x_w, batch.x_l, mu, mu_of_other, sigma, self.reduction)

    def _clamped(self, batch: BranchBatch, mu: Latents, mu_ref: Latents, ratio_clamp: float) -> PerExample:
        sigma = self.setup.grid.sigma(batch.index, batch.x_t)
        return clamped_margin(batch.x_w, batch.x_l, mu, mu_ref, sigma, ratio_clamp, self.reduction)

    def state_at(self, step: int) -> dict[str, Tensor]:
        """The states that the trajectories have reached; nothing between iterations."""
        return self.pending.at(step)

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None:
        """Put back what `state_at` gave; raises `CheckpointError` where trajectories under way are missing."""
        self.pending.restore(step, state, needed=("x",) if step % self.num_trained_steps else ())

    def _draw(
        self,
        rollouts: RolloutBatch,
        x: Latents,
        parts: Sequence[Sequence[int]],
        walked: range,
        timesteps: TimestepStrategy,
    ) -> list[BranchBatch]:
        """Micro-batches of candidates at the end of the steps `walked` from `x`."""
        drawn = [self._advance(rollouts, x[rows], rows, walked.start, walked.stop) for rows in parts]
        # The first part to be trained is the last to branch: so the gradient of one prediction waits at a time. It would wait in
        # vain where several processes train, whose gradients are reduced by the wrapper that drawing goes around.
        kept = 0 if self.setup.ranks.count == 1 else None
        last_to_first = [
            self._branch(rollouts, drawn[part], parts[part], walked.stop, timesteps, keeps_policy=part == kept)
            for part in reversed(range(len(parts)))
        ]
        return last_to_first[::-1]

    def _advance(self, rollouts: RolloutBatch, x: Latents, rows: Sequence[int], first: int, last: int) -> Latents:
        drawn = walk(
            self.setup.grid,
            rollouts.drawing(rows),
            x,
            lambda index: rollouts.draws.noise(rows, index),
            first=first,
            last=last,
        )
        return drawn.states[-1] if drawn.states else x

    @torch.no_grad()
    def _branch(
        self,
        rollouts: RolloutBatch,
        x_t: Latents,
        rows: Sequence[int],
        index: int,
        timesteps: TimestepStrategy,
        *,
        keeps_policy: bool,
    ) -> BranchBatch:
        grid, predict = self.setup.grid, rollouts.drawing(rows)
        with torch.set_grad_enabled(keeps_policy):
            policy = predict(x_t, grid.time(index_of(index, x_t), x_t))
        z_0, z_1 = (rollouts.draws.noise(rows, index, number) for number in (0, 1))
        x_0, x_1 = branch(grid, policy, x_t, z_0, z_1, index=index)
        r_0, r_1 = (rollouts.judge(self._foresee(predict, x, index + 1), rows) for x in (x_0, x_1))
        h = preference(r_0, r_1).to(x_t.device)
        first_wins = (h >= 0).reshape(-1, 1, 1, 1)  # a tie goes on with candidate 0
        x_w, x_l = torch.where(first_wins, x_0, x_1), torch.where(first_wins, x_1, x_0)
        metrics = {"reward": (0.5 * (r_0[0] + r_1[0])).to(x_t.device), "tie_rate": (h == 0).float()}
        metrics["reward_std"] = spread(torch.cat([r_0[0], r_1[0]]))[: len(h)].to(x_t.device)
        if self.guidance is not None:
            x_w, guided = self._guide(self.guidance, rollouts, predict, x_w, rows, index)
            metrics |= guided
        at = index_of(index, x_t)
        t = grid.level(at, x_t)
        scale = timesteps.reward_scale(t.cpu()).to(x_t.device)
        weight = (h != 0).float()
        kept = policy if keeps_policy else None
        return BranchBatch(rollouts, rows, x_t, x_w, x_l, at, t, scale, weight, metrics, kept)

    def _foresee(self, predict: Guided, x: Latents, index: int, *, through_network: bool = True) -> Latents:
        """The image foreseen from a state, at that state's own timestep; the state itself at the end.

        With the network's noise held fixed, d x0hat / dx is 1/a(t): 1/sqrt(abar_t), or 1/(1-s) in flow matching.
        """
        grid = self.setup.grid
        if index == len(grid):
            return x
        at = index_of(index, x)
        if through_network:
            return grid.x_0(x, predict(x, grid.time(at, x)), at)
        with torch.no_grad():  # as they are held fixed, nothing is kept to go back through them
            eps = grid.eps(x, predict(x, grid.time(at, x)), at)
        return grid.x_0_of_eps(x, eps, at)

    def _guide(
        self,
        guidance: RewardGuidance,
        rollouts: RolloutBatch,
        predict: Guided,
        x_w: Latents,
        rows: Sequence[int],
        index: int,
    ) -> tuple[Latents, dict[str, PerExample]]:
        """The winner after one step up its reward, where that is better; and how far and how often."""

        def reward(x: Latents) -> PerExample:
            foreseen = self._foresee(predict, x, index + 1, through_network=guidance.through_network)
            return rollouts.judge(foreseen, rows)[0]

        grid = self.setup.grid
        higher, before = climb(x_w, reward, guidance.eta(index, len(grid)), guidance.delta)
        accepted = (reward(higher) > before).to(x_w.device)
        chosen = torch.where(accepted.reshape(-1, 1, 1, 1), higher, x_w)
        moved = (chosen - x_w).flatten(1).square().mean(dim=1).sqrt() / grid.sigma(index_of(index, x_w), x_w)
        return chosen, {"guidance_accepted": accepted.float(), "guidance_step": moved}


def _in_order(ranks: Ranks, own: Sequence[Tensor]) -> Tensor:
    """The rows of every process's micro-batches, in the order of the step."""
    return torch.cat([one for of_all in zip(*ranks.everywhere(lambda: own), strict=True) for one in of_all])


def share_weights(batches: Sequence[BranchBatch], decided: PerExample) -> list[BranchBatch]:
    """Weights whose mean over all prompts of a step is 1, so that the mean runs over those that were `decided`."""
    scale = len(decided) / max(1.0, float(decided.sum()))
    return [replace(batch, weight=batch.weight * scale) for batch in batches]
