"""Every method's loss on SDXL, SD 3 and FLUX.1 is its paper's formula, worked by hand in float64."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from alignment_core.datasets.cache import ShardReader
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.methods.d3po import D3PO, TrajectoryPairs
from alignment_core.methods.ddpo import DDPO, WeighedSteps
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.methods.diffusion_kto import DiffusionKTO, ImageBatch
from alignment_core.methods.dpok import DPOK, ReplayedSteps
from alignment_core.methods.mapo import MaPO
from alignment_core.methods.pair_batches import PairBatch, PairDraws
from alignment_core.methods.tailorpo import BranchBatch, RewardGuidance, TailorPO
from alignment_core.rollouts.setup import RolloutBatch, RolloutSetup
from alignment_core.rollouts.trajectories import Transitions
from alignment_core.timesteps.strategies import UniformTimesteps
from tests.alignment_core.families.by_hand import (
    ETA,
    NUM_STEPS,
    SCALE,
    Asked,
    Noise,
    noise_of,
    normal,
    over,
    wide_actors,
)

torch.set_num_threads(1)

PROMPTS = ["a red circle", "a blue square", ""]
TIMES = torch.tensor([40, 500, 990])
FRAMES_W, FRAMES_L = (
    torch.tensor([[40.0, 30, 0, 3], [16, 16, 0, 0], [64, 16, 5, 0]]),
    torch.tensor([[20.0, 90, 5, 0], [16, 33, 0, 8], [16, 16, 0, 0]]),
)
BETA = 100.0


class Nothing:
    """In place of what a batch is read from: batches are made here."""

    def read(self, *_: Any) -> Any:
        return {}


NOWHERE = torch.zeros(0, 2, dtype=torch.long)
DRAWS = PairDraws(
    PreferencePairs([], Nothing(), cast(ShardReader, Nothing()), NOWHERE, NOWHERE, lambda _: {}), 0.0, 3, 1, 0
)


# The others differ from these in the target and in what the network is told, and nowhere in a loss.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sdxl_v", "flux_schnell")]


@pytest.fixture(scope="module", params=["sdxl", "sd3", "flux", *SLOW])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with wide_actors(request.param, tmp_path_factory.mktemp(request.param)) as actors:
        yield Asked(request.param, actors)


@pytest.fixture
def noise(asked: Asked) -> Noise:
    return noise_of(asked.name, asked.family)


def latents(asked: Asked, seed: int) -> Tensor:
    return normal(3, *asked.family.latent_shape(16), seed=seed)


def assert_is(found: Tensor, expected: Tensor) -> None:
    """Equal to rounding, and no number that any network would give."""
    assert found.dtype is torch.float64
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert len(set(expected.tolist())) > 1


# --- from pairs and single images ------------------------------------------------------------------------------------


def errors(asked: Asked, noise: Noise, x_0: Tensor, eps: Tensor, frames: Tensor, prompts: Sequence[str]) -> Any:
    """mean |y - y_hat|^2 of policy and reference, and what a pair's error in eps is in that of the target."""
    a, b, time = noise.at(TIMES)
    with torch.no_grad():
        said = [asked.says(a * x_0 + b * eps, time, prompts, adapted=on, frames=frames) for on in (True, False)]
    return [(y - noise.target(x_0, eps, a, b)).square().mean(dim=(1, 2, 3)) for y in said]


def pair_batch(asked: Asked, label: Tensor | None = None) -> PairBatch:
    ones = torch.ones(3, dtype=torch.float64)
    return PairBatch(
        x_0_w=latents(asked, 1),
        x_0_l=latents(asked, 2),
        eps=latents(asked, 3),
        timesteps=TIMES,
        reward_scale=ones,
        conditioning=asked.family.encode_prompts(PROMPTS),
        label=ones if label is None else label,
        image_w=asked.family.image_conditioning(FRAMES_W, 16),
        image_l=asked.family.image_conditioning(FRAMES_L, 16),
    )


def pair_errors(asked: Asked, noise: Noise, batch: PairBatch) -> list[Tensor]:
    """m_w, r_w, m_l, r_l."""
    return [
        *errors(asked, noise, batch.x_0_w, batch.eps, FRAMES_W, PROMPTS),
        *errors(asked, noise, batch.x_0_l, batch.eps, FRAMES_L, PROMPTS),
    ]


def kl_to(h: Tensor, alpha: float) -> Tensor:
    p = 1 / (1 + torch.exp(-h))
    return p * torch.log(p / (1 - alpha)) + (1 - p) * torch.log((1 - p) / alpha)


# 1.1, as its table has them; e = 0.2 and a = 0.05
VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda h: torch.log1p(torch.exp(-h)),
    "hinge": lambda h: torch.maximum(torch.zeros_like(h), 1 - h),
    "ipo": lambda h: (h - 0.5) ** 2,
    "cdpo": lambda h: 0.8 * torch.log1p(torch.exp(-h)) + 0.2 * torch.log1p(torch.exp(h)),
    "robust": lambda h: (0.8 * torch.log1p(torch.exp(-h)) - 0.2 * torch.log1p(torch.exp(h))) / 0.6,
    "dmpo": lambda h: kl_to(h, 0.05),
}


def dpo_of(kind: Any = "sigmoid", *, in_eps_units: bool = False) -> DiffusionDPO:
    loss = pair_loss(kind, label_smoothing=0.2, dmpo_alpha=0.05)
    return DiffusionDPO(DRAWS, loss, BETA, "mean", half_factor=True, in_eps_units=in_eps_units)


def test_diffusion_dpo_and_its_variants_are_their_formulas(asked: Asked, noise: Noise) -> None:
    batch = pair_batch(asked)
    m_w, r_w, m_l, r_l = pair_errors(asked, noise, batch)
    u = -BETA / 2 * ((m_w - m_l) - (r_w - r_l))
    assert float(u.abs().max()) > 1e-2  # far from where nothing is learnt
    for kind, formula in VARIANTS.items():
        assert_is(dpo_of(kind).loss(asked.actors, batch).per_example, formula(u))


def test_errors_in_noise_and_a_soft_label_are_their_formulas(asked: Asked, noise: Noise) -> None:
    label = torch.tensor([0.7, 1.0, 0.5], dtype=torch.float64)
    batch = pair_batch(asked, label)
    m_w, r_w, m_l, r_l = pair_errors(asked, noise, batch)
    a, _, _ = noise.at(TIMES)
    u = -BETA / 2 * noise.eps_scale(a).flatten() * ((m_w - m_l) - (r_w - r_l))
    expected = label * torch.log1p(torch.exp(-u)) + (1 - label) * torch.log1p(torch.exp(u))
    assert_is(dpo_of(in_eps_units=True).loss(asked.actors, batch).per_example, expected)


def test_mapo_is_its_formula(asked: Asked, noise: Noise) -> None:
    batch = pair_batch(asked)
    m_w, _, m_l, _ = pair_errors(asked, noise, batch)
    b_w, b_l = (0.5 * m / (torch.exp(0.5 * m) - 1) for m in (m_w, m_l))
    expected = m_w + 0.1 * torch.log1p(torch.exp(-1000 * (b_w - b_l)))
    method = MaPO(DRAWS, beta=0.1, kappa=0.5, logit_scale=1000.0)
    assert_is(method.loss(asked.actors, batch).per_example, expected)


@pytest.mark.parametrize("baseline", ["batch_mean", "class_mean", "mismatched"])
def test_diffusion_kto_is_its_formula(baseline: Any, asked: Asked, noise: Noise) -> None:
    x_0, eps, liked = latents(asked, 1), latents(asked, 3), torch.tensor([True, False, True])
    batch = ImageBatch(
        x_0=x_0,
        eps=eps,
        timesteps=TIMES,
        reward_scale=torch.ones(3, dtype=torch.float64),
        conditioning=asked.family.encode_prompts(PROMPTS),
        liked=liked,
        image_conditioning=asked.family.image_conditioning(FRAMES_W, 16),
    )
    images = JudgedImages([], Nothing(), cast(ShardReader, Nothing()), NOWHERE, NOWHERE)
    method = DiffusionKTO(images, BETA, baseline, "sigmoid", 1.5, 0.5, None, 0.0, 3, 1, 0)
    m, r = errors(asked, noise, x_0, eps, FRAMES_W, PROMPTS)
    g = r - m
    match baseline:
        case "batch_mean":
            q = g.mean().clamp(min=0)
        case "class_mean":
            q = ((g[0] + g[2]) / 2 + g[1]) / 2
        case _:  # each image under another's prompt, and told its own size
            other_m, other_r = errors(asked, noise, x_0, eps, FRAMES_W, [PROMPTS[-1], *PROMPTS[:-1]])
            q = (other_r - other_m).mean()
    z = torch.tensor([1, -1, 1]) * BETA * (g - q)
    expected = torch.tensor([1.5, 0.5, 1.5]) * (1 - 1 / (1 + torch.exp(-z)))
    assert_is(method.loss(asked.actors, batch).per_example, expected)


# --- from trajectories -----------------------------------------------------------------------------------------------

ROWS, INDEX = [0, 1, 1], torch.tensor([0, 1, 3])


class Squares:
    """A reward with a gradient that is not the same everywhere."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return 10 * images.square().mean(dim=(1, 2, 3))


@pytest.fixture
def setup(asked: Asked) -> RolloutSetup:
    """As loading makes it: a network that is told its guidance is told `SCALE`, and any other is led away from no prompt."""
    family, is_told = asked.family, asked.name.startswith("flux")
    return RolloutSetup(
        prompts=PROMPTS[:2],
        grid=family.path.grid(NUM_STEPS, ETA),
        guidance_scale=1.0 if is_told else SCALE,
        latent_shape=family.latent_shape(16),
        encode=lambda prompts: (
            family.with_guidance(family.sampling_conditioning(prompts), SCALE)
            if is_told
            else family.sampling_conditioning(prompts)
        ),
        encode_empty=lambda: {**family.sampling_conditioning([""]), **family.encode_empty()},
        decode=family.decode,
        rewards=[Squares()],
        seed=4,
    )


def said_at_steps(asked: Asked, noise: Noise, steps: Transitions, *, adapted: bool) -> Tensor:
    prompts = [steps.rollouts.prompts[row] for row in steps.rows]
    with torch.no_grad():
        return asked.says_guided(steps.x_t, noise.at_step(steps.index)[2], prompts, adapted=adapted)


def log_density(noise: Noise, x_prev: Tensor, x_t: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """mean over the latent of log N(x_prev; mu, sigma^2)."""
    mu, sigma = noise.step(x_t, y, index)
    return torch.distributions.Normal(mu, sigma).log_prob(x_prev).mean(dim=(1, 2, 3))


def steps_of(asked: Asked, noise: Noise, rollouts: RolloutBatch, seed: int) -> Transitions:
    """Steps to near where the reference's lead; the old policy found each a little more or less likely."""
    x_t, old = latents(asked, seed), torch.zeros(3, dtype=torch.float64)
    steps = Transitions(rollouts, ROWS, INDEX, torch.zeros(3, dtype=torch.long), x_t, x_t, old)
    mu, sigma = noise.step(x_t, said_at_steps(asked, noise, steps, adapted=False), INDEX)
    steps = Transitions(rollouts, ROWS, INDEX, steps.timesteps, x_t, mu + sigma * latents(asked, seed + 1), old)
    now = log_density(noise, steps.x_prev, x_t, said_at_steps(asked, noise, steps, adapted=True), INDEX)
    return Transitions(rollouts, ROWS, INDEX, steps.timesteps, x_t, steps.x_prev, now - torch.tensor([0.05, -0.3, 0.4]))


def log_ratio(asked: Asked, noise: Noise, steps: Transitions) -> Tensor:
    """log pi_theta - log pi_ref of each step."""
    policy, reference = (said_at_steps(asked, noise, steps, adapted=on) for on in (True, False))
    return log_density(noise, steps.x_prev, steps.x_t, policy, INDEX) - log_density(
        noise, steps.x_prev, steps.x_t, reference, INDEX
    )


@pytest.mark.parametrize("clamp", [0.9, 1e-2])
def test_d3po_is_its_formula(clamp: float, asked: Asked, noise: Noise, setup: RolloutSetup) -> None:
    rollouts = setup.rollout_batch(asked.actors, 0, 2)
    of_0, of_1 = (steps_of(asked, noise, rollouts, seed) for seed in (20, 30))
    h = torch.tensor([1, -1, 1], dtype=torch.float64)
    method = D3PO(setup, 5.0, "mean", clamp, 2, 2, 3, 1)
    found = method.loss(asked.actors, TrajectoryPairs(of_0, of_1, h, torch.ones_like(h), {})).per_example
    ratios = torch.stack([log_ratio(asked, noise, steps).exp() for steps in (of_0, of_1)])
    rho_0, rho_1 = ratios.clamp(1 - clamp, 1 + clamp)
    expected = torch.log1p(torch.exp(-5.0 * (h * rho_0.log() - h * rho_1.log())))
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert clamp > 0.1 or bool(((ratios - 1).abs() > clamp).any())
    assert float((ratios[0] - ratios[1]).abs().max()) > 1e-3


def test_ddpo_is_its_formula(asked: Asked, noise: Noise, setup: RolloutSetup) -> None:
    steps = steps_of(asked, noise, setup.rollout_batch(asked.actors, 0, 2), 20)
    advantage = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    method = DDPO(setup, 0.1, 5.0, "batch", 2, 2, 2, 3, 1)
    found = method.loss(asked.actors, WeighedSteps(steps, advantage, {})).per_example
    now = log_density(noise, steps.x_prev, steps.x_t, said_at_steps(asked, noise, steps, adapted=True), INDEX)
    rho = (now - steps.log_prob).exp()  # within the clamp, and on either side of it
    assert_is(found, torch.maximum(-advantage * rho, -advantage * rho.clamp(0.9, 1.1)))


def test_dpok_is_its_formula(asked: Asked, noise: Noise, setup: RolloutSetup) -> None:
    steps = steps_of(asked, noise, setup.rollout_batch(asked.actors, 0, 2), 20)
    advantage, scale = torch.tensor([[1.5, -2.0, 0.5], [1.0, 1.2, 2.0]], dtype=torch.float64)
    method = DPOK(setup, 0.1, 10.0, 3.0, "none", 2, 1, 1, 1, 3, 1)
    found = method.loss(asked.actors, ReplayedSteps(steps, advantage, scale, {})).per_example
    policy, reference = (said_at_steps(asked, noise, steps, adapted=on) for on in (True, False))
    a, b, _ = noise.at_step(INDEX)
    gap = noise.noise(steps.x_t, policy, a, b) - noise.noise(steps.x_t, reference, a, b)
    rho = (log_density(noise, steps.x_prev, steps.x_t, policy, INDEX) - steps.log_prob).exp()
    leash = gap.square().mean(dim=(1, 2, 3))
    assert float(leash.max()) > 1e-4
    assert_is(found, scale * (-10.0 * advantage * rho.clamp(0.9, 1.1) + 3.0 * leash))


def first_branch(asked: Asked, setup: RolloutSetup, guidance: RewardGuidance | None) -> tuple[TailorPO, BranchBatch]:
    method = TailorPO(setup, 5.0, "mean", 2, guidance, None, 2, 1)
    return method, next(method.batches(asked.actors, UniformTimesteps(asked.family.path.num_timesteps), 0))


@pytest.mark.parametrize("guidance", [None, RewardGuidance(0.1, 0.2, 0.5)], ids=["tailorpo", "tailorpo_g"])
def test_tailorpo_is_its_formula(
    guidance: RewardGuidance | None, asked: Asked, noise: Noise, setup: RolloutSetup
) -> None:
    """Candidates of one x_T, ranked by what is foreseen of each; the winner of TailorPO-G climbs. Then the loss of both."""
    method, batch = first_branch(asked, setup, guidance)
    first = torch.zeros(2, dtype=torch.long)
    time = noise.at_step(first)[2]
    prompts = list(batch.rollouts.prompts)
    assert set(prompts) == set(PROMPTS[:2])
    with torch.no_grad():
        policy, reference = (asked.says_guided(batch.x_t, time, prompts, adapted=on) for on in (True, False))
    mu, sigma = noise.step(batch.x_t, policy, first)
    mu_ref, _ = noise.step(batch.x_t, reference, first)
    candidates = [mu + sigma * batch.rollouts.draws.noise(batch.rows, 0, branch).double() for branch in (0, 1)]
    winner, loser = ranked(asked, noise, candidates, prompts)
    if guidance is not None:
        winner = climbed(asked, noise, winner, prompts, eta=0.1, delta=0.5)
    assert torch.allclose(batch.x_w, winner, rtol=1e-9, atol=1e-9)
    assert torch.allclose(batch.x_l, loser, rtol=1e-9, atol=1e-9)
    ratios = [
        (torch.distributions.Normal(mu, sigma).log_prob(x) - torch.distributions.Normal(mu_ref, sigma).log_prob(x))
        for x in (winner, loser)
    ]
    expected = torch.log1p(torch.exp(-5.0 * (ratios[0] - ratios[1]).mean(dim=(1, 2, 3))))
    assert_is(method.loss(asked.actors, batch).per_example, expected)


def reward_of(asked: Asked, noise: Noise, x: Tensor, prompts: Sequence[str]) -> Tensor:
    """The reward of the image that the policy foresees from a candidate, at the candidate's own step, the second."""
    a, b, time = noise.at_step(torch.ones(2, dtype=torch.long))
    image = noise.image(x, asked.says_guided(x, time, prompts), a, b)
    return 10 * asked.decoded(image).square().mean(dim=(1, 2, 3))


def ranked(asked: Asked, noise: Noise, candidates: list[Tensor], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        r_0, r_1 = (reward_of(asked, noise, x, prompts) for x in candidates)
    return torch.where(over(r_0 > r_1), *candidates), torch.where(over(r_0 > r_1), *candidates[::-1])


def climbed(asked: Asked, noise: Noise, winner: Tensor, prompts: Sequence[str], *, eta: float, delta: float) -> Tensor:
    """x + 2 eta delta grad r, where r is then higher (2.6)."""
    x = winner.clone().requires_grad_(True)
    before = reward_of(asked, noise, x, prompts)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    higher = (x + 2 * eta * delta * gradient).detach()
    with torch.no_grad():
        accepted = reward_of(asked, noise, higher, prompts) > before
    assert accepted.any()
    return torch.where(over(accepted), higher, winner)
