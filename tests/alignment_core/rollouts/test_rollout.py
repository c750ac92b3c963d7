"""The DDIM step with noise, guidance and preferences, against the vectors of the reference and diffusers' scheduler."""

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_core.diffusion.discrete_vp import DDIMGrid, ddim_grid
from alignment_core.diffusion.formulas import TimestepSpacing, ddim_timesteps, scaled_linear_abar, step_log_prob
from alignment_core.rollouts.rollout import (
    Draws,
    branch,
    guided,
    index_of,
    log_prob,
    preference,
    prompts_of_iteration,
    walk,
)

ABAR = scaled_linear_abar()
GRID = ddim_grid("epsilon", ABAR, range(951, 0, -50), eta=1.0, final_abar=0.99915)
STEPS = {  # step counted down: t, abar_t, abar_prev, sigma_t, log-probability at z = 0, kappa/sigma
    20: (951, 0.008155004567, 0.01400489789, 0.6443910140, -0.4794889607, -0.8529518004),
    16: (751, 0.0557190293, 0.08191671353, 0.5576164962, -0.3348546974, -0.7156301675),
    12: (551, 0.2127825189, 0.2749990669, 0.4564668711, -0.1346993800, -0.6350613755),
    8: (351, 0.5048185579, 0.5888187042, 0.3441784844, 0.1476563731, -0.6361443725),
    4: (151, 0.8263992481, 0.8929805371, 0.2143930414, 0.6210057733, -0.8676603647),
    2: (51, 0.9505243219, 0.9982960278, 0.0405967319, 2.285129177, -5.430908810),
    1: (1, 0.9982960278, 0.9991500000, 0.02064832017, 2.961182778, -1.003188910),
}


def latent(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("number", STEPS)
def test_the_grid_has_the_reference_s_coefficients(number: int) -> None:
    t, abar_t, abar_prev, sigma_t, at_zero, kappa = STEPS[number]
    index = 20 - number
    assert GRID.timesteps[index] == t
    assert GRID.abar_t[index].item() == pytest.approx(abar_t, rel=1e-9)
    assert GRID.abar_prev[index].item() == pytest.approx(abar_prev, rel=1e-9)
    assert GRID.sigma_t[index].item() == pytest.approx(sigma_t, rel=1e-9)
    x, at = latent(0.5, -1.0), torch.tensor([index])
    mu = GRID.mean(x, latent(0.1, 0.2), at)
    assert log_prob(GRID, mu, x, latent(0.1, 0.2), at).item() == pytest.approx(at_zero, rel=1e-8)
    change = GRID.mean(x, latent(1.1, 0.2), at) - mu  # the mean's derivative by eps is kappa
    assert (change[..., 0] / GRID.sigma_t[index]).item() == pytest.approx(kappa, rel=1e-7)


def test_one_step_by_hand() -> None:
    x, eps, z = latent(0.5, -1, 0.25, 2), latent(0.4, -0.8, 0.1, 1.5), latent(1, -0.5, 0.2, -1)
    at = torch.tensor([8])
    mu = GRID.mean(x, eps, at)
    assert mu.flatten().tolist() == pytest.approx([0.4524639719, -0.9049279438, 0.2552204339, 1.838844336], rel=1e-9)
    x_prev = mu + GRID.sigma_t[8] * z
    assert x_prev.flatten().tolist() == pytest.approx([0.9089308430, -1.133161379, 0.3465138081, 1.382377465], rel=1e-9)
    assert log_prob(GRID, x_prev, x, eps, at).item() == pytest.approx(-0.4209493800, rel=1e-9)


def test_the_log_density_is_a_mean_or_a_sum() -> None:
    x, mu, sigma = latent(1, 0, 0, -1), latent(0.5, 0, 0, -0.5), torch.tensor([0.5], dtype=torch.float64)
    assert step_log_prob(x, mu, sigma).item() == pytest.approx(-0.4757913526, rel=1e-9)
    assert step_log_prob(x, mu, sigma, "sum").item() == pytest.approx(-1.903165411, rel=1e-9)


SPACINGS: tuple[TimestepSpacing, ...] = ("leading", "trailing", "linspace")


def scheduler_of(kind: str, spacing: str, **changes: object) -> DDIMScheduler:
    """SD 1.x's schedule."""
    settings = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": spacing}
    betas = {"prediction_type": kind, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(**{**betas, **settings, **changes})


def grid_of(scheduler: DDIMScheduler, num_steps: int, eta: float) -> DDIMGrid:
    """Ours of the same config."""
    config = scheduler.config
    timesteps = ddim_timesteps(
        len(scheduler.alphas_cumprod), num_steps, spacing=config["timestep_spacing"], offset=config["steps_offset"]
    )
    final = float(scheduler.final_alpha_cumprod)
    return ddim_grid(config["prediction_type"], scheduler.alphas_cumprod, timesteps, eta=eta, final_abar=final)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("steps_offset", [0, 1])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_every_sample_is_the_scheduler_s(
    kind: str, spacing: str, set_alpha_to_one: bool, steps_offset: int, eta: float
) -> None:
    last, zero_snr = (
        {"set_alpha_to_one": set_alpha_to_one, "steps_offset": steps_offset},
        kind == "v_prediction" and eta < 1,
    )
    scheduler = scheduler_of(kind, spacing, **last, rescale_betas_zero_snr=zero_snr)
    grid = grid_of(scheduler, 20, eta)
    scheduler.set_timesteps(20)
    assert grid.timesteps.tolist() == scheduler.timesteps.tolist()
    noise = torch.randn(21, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = theirs = noise[20]
    for index, t in enumerate(scheduler.timesteps.tolist()):
        z = noise[index]
        (theirs, *_) = scheduler.step((0.5 * theirs).sin(), t, theirs, eta=eta, variance_noise=z, return_dict=False)
        mine = grid.mean(mine, (0.5 * mine).sin(), torch.tensor([index])) + grid.sigma_t[index] * z
        assert mine.isfinite().all()
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-4)


def test_a_step_from_pure_noise_with_all_its_noise_keeps_only_the_image() -> None:
    """diffusers rounds 1 - abar_prev - sigma^2 to a negative number there, and its samples are NaN."""
    scheduler = scheduler_of("v_prediction", "trailing", rescale_betas_zero_snr=True)
    grid, x, v = grid_of(scheduler, 20, 1.0), latent(0.5, -1.0), latent(0.3, 0.2)
    assert grid.timesteps[0] == 999
    assert grid.abar_t[0] == 0
    mean = grid.mean(x, v, torch.tensor([0]))
    assert torch.allclose(mean, grid.abar_prev[0].sqrt() * -v, rtol=0, atol=1e-4)
    assert grid.trainable == list(range(20))


@given(st.integers(1, 1000), st.sampled_from(SPACINGS), st.integers(0, 1))
@settings(deadline=None, max_examples=300)
def test_timesteps_are_the_scheduler_s_or_refused_where_those_leave_the_model(
    num_steps: int, spacing: TimestepSpacing, offset: int
) -> None:
    scheduler = scheduler_of("epsilon", spacing, steps_offset=offset)
    scheduler.set_timesteps(num_steps)
    theirs = scheduler.timesteps.tolist()
    if len(theirs) == num_steps and min(theirs) >= 0 and max(theirs) < 1000:
        assert ddim_timesteps(1000, num_steps, spacing=spacing, offset=offset) == theirs
    else:
        with pytest.raises(ValueError, match="do not fit into 1000 timesteps"):
            ddim_timesteps(1000, num_steps, spacing=spacing, offset=offset)


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 sampling steps, and the model has 1000"):
        ddim_timesteps(1000, 1001, spacing="leading", offset=1)


def test_a_walk_follows_a_branch_s_first_candidate() -> None:
    draws = Draws(seed=3, iteration=1, shape=(4, 2, 2))
    rows, predict = [0, 1, 2], lambda x, t: 0.3 * x
    start = draws.start(rows)
    whole = walk(GRID, predict, start, lambda index: draws.noise(rows, index), first=0, last=3)
    x_t = whole.states[1]
    candidate, other = branch(GRID, 0.3 * x_t, x_t, draws.noise(rows, 2), draws.noise(rows, 2, 1), index=2)
    assert torch.equal(candidate, whole.states[2])
    assert not torch.equal(candidate, other)
    again = log_prob(GRID, whole.states[2], whole.states[1], 0.3 * whole.states[1], index_of(2, start))
    assert torch.equal(again, whole.log_probs[2])


@given(st.integers(1, 5), st.integers(0, 4))
def test_a_trajectory_s_noise_does_not_depend_on_its_company(num: int, row: int) -> None:
    draws = Draws(seed=0, iteration=0, shape=(1, 2, 2))
    rows = list(range(num))
    assert torch.equal(draws.noise([*rows, row], 4)[-1], draws.noise([row], 4)[0])


def test_a_step_at_the_end_of_a_schedule_that_reaches_one_has_no_noise() -> None:
    grid = ddim_grid("epsilon", ABAR, range(951, 0, -50), eta=1.0, final_abar=1.0)
    assert grid.sigma_t[-1] == 0
    assert grid.trainable == list(range(19))


def test_guidance_weighs_prompt_against_no_prompt_in_one_forward() -> None:
    calls = []

    def predict(x: torch.Tensor, t: torch.Tensor, conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
        calls.append(len(x))
        return x + conditioning["prompt_embeds"].reshape(-1, 1, 1, 1)

    x, t = torch.zeros(2, 1, 1, 1), torch.tensor([5, 5])
    own, empty = {"prompt_embeds": torch.tensor([[[3.0]], [[4.0]]])}, {"prompt_embeds": torch.tensor([[[1.0]]])}
    assert guided(predict, x, t, own, empty, 5.0).flatten().tolist() == [11.0, 16.0]
    assert guided(predict, x, t, own, empty, 1.0).flatten().tolist() == [3.0, 4.0]
    assert calls == [4, 2]


def test_pareto_dominance_decides_and_anything_else_ties() -> None:
    nan = float("nan")
    first = torch.tensor([[1.0, 1.0, 1.0, 2.0, nan, 0.0], [5.0, 5.0, 5.0, 1.0, 1.0, float("inf")]])
    second = torch.tensor([[0.0, 2.0, 1.0, 1.0, 0.0, 0.0], [5.0, 6.0, 5.0, 2.0, 0.0, 0.0]])
    assert preference(first, second).tolist() == [1.0, -1.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.equal(preference(second, first), -preference(first, second))


def test_every_prompt_comes_once_an_epoch() -> None:
    prompts = [str(number) for number in range(6)]
    seen = [prompt for iteration in range(3) for prompt in prompts_of_iteration(prompts, 4, 0, iteration)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == prompts
