"""The online methods as the published scripts have them: log-probabilities of each sample in a forward of its own.

D3PO's released code, which TailorPO, DDPO's and DPOK's are built like: guidance doubles the batch; the trained steps of either
sample of a pair ask policy and reference anew; captions are encoded for every iteration.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.step.plain import Plain
from benchmarks.step.plain_models import Text

Predict = Callable[[Tensor, Tensor, Text], Tensor]
Reward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Walk:
    """DDIM with noise over `num_steps` of the schedule's timesteps, guided."""

    plain: Plain
    num_steps: int
    guidance_scale: float

    @property
    def timesteps(self) -> list[int]:
        total = self.plain.model.scheduler.config.num_train_timesteps
        return [index * (total // self.num_steps) + 1 for index in range(self.num_steps)][::-1]

    def guided(self, predict: Predict, x: Tensor, t: Tensor, text: Text, empty: Text) -> Tensor:
        both = predict(torch.cat([x, x]), t.repeat(2), text.after(empty))
        without, with_prompt = both.chunk(2)
        return without + self.guidance_scale * (with_prompt - without)

    def mean_and_sigma(self, x: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.plain.model.scheduler.alphas_cumprod.double()
        before = t.cpu() - len(abar) // self.num_steps
        a_t = abar[t.cpu()].reshape(-1, 1, 1, 1)
        a_prev = torch.where(before >= 0, abar[before.clamp(min=0)], abar[0]).reshape(-1, 1, 1, 1)
        sigma = ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)).sqrt()
        a_t, a_prev, sigma = (value.to(x) for value in (a_t, a_prev, sigma))
        x_0 = (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()
        return a_prev.sqrt() * x_0 + (1 - a_prev - sigma.square()).clamp(min=0).sqrt() * eps, sigma

    def log_prob(self, x_prev: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        mean, sigma = self.mean_and_sigma(x, eps, t)
        each = -((x_prev.detach() - mean) ** 2) / (2 * sigma**2) - sigma.log() - 0.5 * math.log(2 * math.pi)
        return each.mean(dim=(1, 2, 3))

    def foresee(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        a_t = self.plain.model.scheduler.alphas_cumprod[t.cpu()].reshape(-1, 1, 1, 1).to(x)
        return (x - (1 - a_t).sqrt() * eps) / a_t.sqrt()

    def decode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.plain.model.decode(x)

    @torch.no_grad()
    def draw(
        self, x: Tensor, text: Text, empty: Text, noise: Callable[[int], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states of a whole trajectory, and the log-probability of each of its steps."""
        states, log_probs = [x], []
        for index, step in enumerate(self.timesteps):
            t = torch.full((len(x),), step, device=x.device)
            eps = self.guided(self.plain.policy, x, t, text, empty)
            mean, sigma = self.mean_and_sigma(x, eps, t)
            drawn = mean + sigma * (torch.randn_like(x) if noise is None else noise(index).to(x))
            log_probs.append(self.log_prob(drawn, x, eps, t))
            states.append(drawn)
            x = drawn
        return torch.stack(states), torch.stack(log_probs)


@dataclass(frozen=True)
class Step:
    """Single steps of trajectories, with their prompts."""

    x_t: Tensor
    x_prev: Tensor
    t: Tensor
    text: Text
    empty: Text


def log_ratio(walk: Walk, step: Step) -> Tensor:
    """log pi_theta - log pi_ref of a step: a forward of each."""
    said = (
        walk.guided(predict, step.x_t, step.t, step.text, step.empty)
        for predict in (walk.plain.policy, walk.plain.predict_reference)
    )
    policy, reference = (walk.log_prob(step.x_prev, step.x_t, eps, step.t) for eps in said)
    return policy - reference


def tailorpo(walk: Walk, winner: Step, loser: Step, decided: Tensor, beta: float) -> Tensor:
    """TailorPO, arXiv 2502.01667: the winner's log-ratio less the loser's, over the prompts that were decided."""
    margin = log_ratio(walk, winner) - log_ratio(walk, loser)
    return (decided * -F.logsigmoid(beta * margin)).sum() / decided.sum().clamp(min=1)


def d3po(walk: Walk, of_0: Step, of_1: Step, h: Tensor, beta: float, ratio_clamp: float) -> Tensor:
    """D3PO, arXiv 2311.13231."""
    ratio_0, ratio_1 = (
        log_ratio(walk, step).exp().clamp(1 - ratio_clamp, 1 + ratio_clamp).log() for step in (of_0, of_1)
    )
    return -F.logsigmoid(beta * h * (ratio_0 - ratio_1)).mean()


def ddpo(walk: Walk, step: Step, old_log_prob: Tensor, advantage: Tensor, ratio_clamp: float) -> Tensor:
    """DDPO, arXiv 2305.13301."""
    eps = walk.guided(walk.plain.policy, step.x_t, step.t, step.text, step.empty)
    ratio = (walk.log_prob(step.x_prev, step.x_t, eps, step.t) - old_log_prob).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - ratio_clamp, 1 + ratio_clamp)).mean()


def dpok(
    walk: Walk, step: Step, old_log_prob: Tensor, advantage: Tensor, *, ratio_clamp: float, reward: float, kl: float
) -> Tensor:
    """DPOK, arXiv 2305.16381."""
    eps = walk.guided(walk.plain.policy, step.x_t, step.t, step.text, step.empty)
    eps_ref = walk.guided(walk.plain.predict_reference, step.x_t, step.t, step.text, step.empty)
    ratio = (walk.log_prob(step.x_prev, step.x_t, eps, step.t) - old_log_prob).exp()
    away = (eps - eps_ref).square().mean(dim=(1, 2, 3))
    return (-reward * advantage * ratio.clamp(1 - ratio_clamp, 1 + ratio_clamp) + kl * away).mean()


# --- iterations ----------------------------------------------------------------------------------------------------


def tailorpo_iteration(
    walk: Walk, prompts: Sequence[str], reward: Reward, *, trained: Sequence[int], shape: tuple[int, ...], beta: float
) -> None:
    """One trajectory a prompt to its end, with an update at each of the `trained` steps."""
    plain = walk.plain
    text, empty = plain.captions(prompts), plain.captions([""])
    x = torch.randn(len(prompts), *shape, device=plain.device)
    for index, number in enumerate(walk.timesteps):
        t = torch.full((len(x),), number, device=plain.device)
        with torch.no_grad():
            mean, sigma = walk.mean_and_sigma(x, walk.guided(plain.policy, x, t, text, empty), t)
            candidates = [mean + sigma * torch.randn_like(x) for _ in range(2 if index in trained else 1)]
        if index not in trained:
            (x,) = candidates
            continue
        later = t - plain.model.scheduler.config.num_train_timesteps // walk.num_steps
        with torch.no_grad():
            scores = [
                reward(walk.decode(walk.foresee(one, walk.guided(plain.policy, one, later, text, empty), later)))
                for one in candidates
            ]
        wins = (scores[0] >= scores[1]).reshape(-1, 1, 1, 1)
        w, lost = torch.where(wins, *candidates), torch.where(wins, *candidates[::-1])
        winner, loser = (Step(x, side, t, text, empty) for side in (w, lost))
        plain.update(tailorpo(walk, winner, loser, (scores[0] != scores[1]).float(), beta))
        x = w


def d3po_iteration(
    walk: Walk,
    prompts: Sequence[str],
    reward: Reward,
    *,
    num_trained: int,
    batch_size: int,
    shape: tuple[int, ...],
    beta: float,
) -> None:
    """A pair of trajectories a prompt, and an update for every `batch_size` of their trained steps."""
    plain = walk.plain
    text, empty = plain.captions(prompts).detach(), plain.captions([""]).detach()
    x = torch.randn(len(prompts), *shape, device=plain.device)
    drawn = [walk.draw(x, text, empty)[0] for _ in range(2)]
    scores = [reward(walk.decode(states[-1])) for states in drawn]
    h = torch.sign(scores[0] - scores[1])
    for rows, index, t in _shuffled(walk, len(prompts), num_trained, batch_size):
        of_0, of_1 = (Step(s[index, rows], s[index + 1, rows], t, text[rows], empty) for s in drawn)
        plain.update(d3po(walk, of_0, of_1, h[rows], beta, 0.1))


def policy_gradient_iteration(
    walk: Walk,
    prompts: Sequence[str],
    reward: Reward,
    loss: Callable[[Step, Tensor, Tensor], Tensor],
    *,
    num_trained: int,
    batch_size: int,
    shape: tuple[int, ...],
) -> None:
    """One trajectory a prompt, and an update for every `batch_size` of their trained steps: DDPO's, and DPOK's."""
    plain = walk.plain
    text, empty = plain.captions(prompts).detach(), plain.captions([""]).detach()
    x = torch.randn(len(prompts), *shape, device=plain.device)
    states, log_probs = walk.draw(x, text, empty)
    scores = reward(walk.decode(states[-1]))
    advantage = (scores - scores.mean()) / (scores.std(unbiased=False) + 1e-8)
    for rows, index, t in _shuffled(walk, len(prompts), num_trained, batch_size):
        step = Step(states[index, rows], states[index + 1, rows], t, text[rows], empty)
        plain.update(loss(step, log_probs[index, rows], advantage[rows]))


def _shuffled(walk: Walk, num_rows: int, num_trained: int, batch_size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    steps = torch.tensor(walk.timesteps)
    places = [(row, int(index)) for row in range(num_rows) for index in torch.randperm(len(steps) - 1)[:num_trained]]
    parts = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    found = []
    for part in parts:
        rows, index = torch.tensor(part).unbind(dim=1)
        found.append((rows, index, steps[index].to(walk.plain.device)))
    return found
