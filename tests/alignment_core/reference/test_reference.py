"""When the reference moves, what stops it, and what the policy pays: vectors worked by hand."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.reference_weights import Weights
from alignment_core.diffusion.formulas import regression_error
from alignment_core.errors import CheckpointError
from alignment_core.protocols import Predictions
from alignment_core.reference.drift_on_winners import DriftKind
from alignment_core.reference.moving import DriftControl, FixedAlpha, Guard, MovingReference, Penalty
from tests.alignment_core.actors.test_reference_weights import moving, nudge, update


class Told:
    """A drift that says what it was told to."""

    kind: DriftKind = "mse_gap"

    def __init__(self, *values: float) -> None:
        self._values: Iterator[float] = iter(values)

    def of(self, weights: Weights | None) -> float:
        return next(self._values)

    def unit(self) -> float:
        return 0.5


class WeightDistance:
    """The squared distance of the weights themselves from those of the initial model: outputs linear in the weights."""

    kind: DriftKind = "eps_dist"

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._initial = {name: value.clone() for name, value in actors.reference.items()}

    def of(self, weights: Weights | None) -> float:
        with torch.no_grad():
            compared = self._actors.blend(1.0) if weights is None else weights
        return sum(float((compared[name] - value).square().sum()) for name, value in self._initial.items())

    def unit(self) -> float:
        return 2.0


def hard_copy(drift: Told, *, action: str = "freeze", sticky: bool = True, every: int = 2) -> MovingReference:
    guard = Guard(delta=0.005, action=action, sticky=sticky, tests_candidate=False)  # pyright: ignore[reportArgumentType]
    return MovingReference(every=every, start=1, rule=FixedAlpha(1.0, guard), drift=drift, penalty=None)


def is_copy(actors: Actors) -> bool:
    with torch.no_grad():
        policy = actors.blend(1.0)
    return all(torch.equal(value, policy[name]) for name, value in actors.reference.items())


def is_initial(actors: Actors) -> bool:
    """No change of the base weights: every B is zero."""
    return all(not value.any() for name, value in actors.reference.items() if "lora_B" in name)


def what_happened(reference: MovingReference, model: Path, steps: int = 8) -> list[str]:
    """At each even step: `copy`, `init`, or `same`."""
    _, actors = moving("lora", "hard_copy", model)
    told = []
    for step in range(1, steps + 1):
        nudge(actors, step)
        before = {name: value.clone() for name, value in actors.reference.items()}
        reference.after_step(actors, step)
        same = all(torch.equal(before[name], value) for name, value in actors.reference.items())
        if step % 2:
            assert same
        else:
            told.append("same" if same else "copy" if is_copy(actors) else "init" if is_initial(actors) else "?")
    return told


def test_a_sticky_freeze_is_for_good(tiny_model: Path) -> None:
    reference = hard_copy(Told(0.0, 0.003, 0.006))  # the fourth due step measures nothing
    assert what_happened(reference, tiny_model) == ["copy", "copy", "same", "same"]
    assert reference.is_frozen
    assert reference.num_updates == 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=6))
def test_nothing_moves_after_the_first_drift_beyond_the_threshold(tiny_model: Path, drifts_told: list[float]) -> None:
    beyond = next((n for n, drift in enumerate(drifts_told) if drift > 0.005), len(drifts_told))
    happened = what_happened(hard_copy(Told(*drifts_told)), tiny_model, steps=2 * len(drifts_told))
    assert happened == ["copy"] * beyond + ["same"] * (len(drifts_told) - beyond)


def test_after_a_reinit_the_drift_is_0(tiny_model: Path) -> None:
    _, actors = moving("full", "hard_copy", tiny_model)
    drift = WeightDistance(actors)
    guard = Guard(delta=1e-9, action="reinit", sticky=True, tests_candidate=False)
    reference = MovingReference(every=1, start=1, rule=FixedAlpha(1.0, guard), drift=drift, penalty=None)
    measured = []
    for step in range(1, 4):
        nudge(actors, step)
        reference.after_step(actors, step)
        measured.append(drift.of(actors.reference))
    assert measured[1] == 0.0 < min(measured[0], measured[2])


def test_a_freeze_that_does_not_stick_skips_one_update(tiny_model: Path) -> None:
    reference = hard_copy(Told(0.0, 0.003, 0.006, 0.0049), sticky=False)
    assert what_happened(reference, tiny_model) == ["copy", "copy", "same", "copy"]
    assert not reference.is_frozen


def test_reinit_puts_the_initial_model_back(tiny_model: Path) -> None:
    reference = hard_copy(Told(0.0, 0.003, 0.006, 0.0), action="reinit")
    assert what_happened(reference, tiny_model) == ["copy", "copy", "init", "copy"]


def test_without_an_action_the_guard_only_tells(tiny_model: Path) -> None:
    reference = hard_copy(Told(0.0, 0.003, 0.006, 7.0), action="none")
    assert what_happened(reference, tiny_model) == ["copy"] * 4
    assert reference.last_drift == 7.0


@pytest.mark.parametrize(
    ("r_w", "i_w", "gap", "decision"),
    [
        ([0.153, 0.148], [0.150, 0.145], 0.003, "update"),
        ([0.157, 0.152], [0.150, 0.145], 0.007, "freeze"),
        ([0.140, 0.140], [0.150, 0.145], -0.0075, "update"),  # better than the initial model: signed
    ],
)
def test_the_guard_stops_beyond_its_threshold(r_w: list[float], i_w: list[float], gap: float, decision: str) -> None:
    measured = (torch.tensor(r_w).double() - torch.tensor(i_w).double()).mean().item()
    guard = Guard(delta=0.005, action="freeze", sticky=True, tests_candidate=False)
    assert measured == pytest.approx(gap, abs=1e-7)
    assert guard.decide(measured) == decision


def test_the_threshold_itself_still_updates_and_a_nan_does_not() -> None:
    guard = Guard(delta=0.005, action="freeze", sticky=False, tests_candidate=False)
    assert guard.decide(0.005) == "update"
    assert guard.decide(math.nan) == "skip"


def test_the_distance_of_predictions_has_the_value_of_the_reference() -> None:
    difference = torch.tensor([[0.1, -0.1, 0.0, 0.0]], dtype=torch.float64)
    assert regression_error(difference, torch.zeros_like(difference)).item() == pytest.approx(0.005)


def test_the_candidate_is_what_the_update_would_make(tiny_model: Path) -> None:
    _, actors = moving("lora", "hard_copy", tiny_model)
    drift = WeightDistance(actors)
    guard = Guard(delta=1e-9, action="freeze", sticky=True, tests_candidate=True)
    reference = MovingReference(every=1, start=1, rule=FixedAlpha(1.0, guard), drift=drift, penalty=None)
    nudge(actors, 0)
    told = reference.after_step(actors, 1)
    assert told["ref_drift_eps_dist"] == pytest.approx(drift.of(None))
    assert (
        reference.is_frozen
    )  # the published test would have let the first copy through: D of the reference is still 0


def test_updates_are_due_every_so_many_steps_from_the_start(tiny_model: Path) -> None:
    _, actors = moving("lora", "hard_copy", tiny_model)
    reference = MovingReference(every=3, start=5, rule=FixedAlpha(1.0, None), drift=None, penalty=None)
    assert [step for step in range(1, 13) if reference.after_step(actors, step)] == [6, 9, 12]


# --- drift-controlled alpha ----------------------------------------------------------------------------------------


def controlled(drift: Told | WeightDistance, delta: float, *, relative: bool = False) -> MovingReference:
    rule = DriftControl(delta=delta, alpha_max=1.0, relative=relative)
    return MovingReference(every=1, start=1, rule=rule, drift=drift, penalty=None)


@pytest.mark.parametrize("relative", [False, True])
def test_a_controlled_reference_never_leaves_its_budget(relative: bool, tiny_model: Path) -> None:
    _, actors = moving("full", "hard_copy", tiny_model)
    drift = WeightDistance(actors)
    nudge(actors, 0)
    budget = 3.5 * drift.of(None)  # of steps that go on in one direction
    reference = controlled(drift, budget / 2 if relative else budget, relative=relative)
    alphas = []
    for step in range(1, 8):
        alphas.append(reference.after_step(actors, step)["ref_alpha"])
        assert drift.of(actors.reference) <= budget
        assert reference.last_drift == drift.of(actors.reference)
        nudge(actors, 0)
    assert alphas[0] == 1.0  # inside the budget it is a copy
    assert 0 < alphas[1] < 1  # as near to the edge as the tolerance
    assert drift.of(actors.reference) >= 0.98 * budget
    assert alphas[2:] == pytest.approx([0.0] * 5, abs=0.02)  # there it waits


def test_the_first_update_towards_a_far_policy_spends_the_budget(tiny_model: Path) -> None:
    _, actors = moving("full", "hard_copy", tiny_model)
    drift = WeightDistance(actors)
    nudge(actors, 0)
    budget = drift.of(None) / 100
    told = controlled(drift, budget).after_step(actors, 1)
    assert 0.98 * budget <= drift.of(actors.reference) <= budget
    assert told["ref_alpha"] == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("over", [1.04, 4.0])
def test_a_reference_beyond_its_budget_follows_a_policy_that_comes_back(over: float, tiny_model: Path) -> None:
    _, actors = moving("full", "hard_copy", tiny_model)
    drift = WeightDistance(actors)
    start = {name: p.detach().clone() for name, p in actors.trainable().items()}
    nudge(actors, 0)
    budget = drift.of(None) / over
    update(actors, 1.0)  # an overshoot
    reference = controlled(drift, budget)
    assert reference.after_step(actors, 1)["ref_alpha"] == 0.0  # the policy stands there too
    for name, parameter in actors.trainable().items():
        parameter.data = start[name] + 0.1 * (parameter.data - start[name])
    assert reference.after_step(actors, 2)["ref_alpha"] == 1.0
    assert drift.of(actors.reference) <= budget


def test_the_same_updates_follow_from_the_same_state(tiny_model: Path) -> None:
    def run(stop_at: int | None) -> list[float]:
        _, actors = moving("full", "hard_copy", tiny_model)
        drift = WeightDistance(actors)
        reference, alphas = controlled(drift, 3.0), []
        for step in range(1, 7):
            nudge(actors, step)
            alphas.append(reference.after_step(actors, step)["ref_alpha"])
            if step == stop_at:
                state, reference = reference.state_dict(), controlled(drift, 3.0)
                reference.load_state_dict(state)
        return [*alphas, reference.last_drift, float(reference.num_updates)]

    assert run(None) == run(3)


# --- what the policy pays ------------------------------------------------------------------------------------------


def scalar(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32).reshape(1, 1, 1, 1)


def penalty_of_toy(mode: str, model: Path, *, lambda_1: float = 1.0, beta: float | None = None) -> tuple[float, float]:
    """Value and gradient in theta of yhat = w x at x = 1: init 0, ref 0.2, theta 0.5, alpha 0.1."""
    theta = torch.tensor(0.5, requires_grad=True)
    predictions = Predictions(
        x_t=scalar(1.0),
        times=torch.tensor([0]),
        conditioning={},
        policy=scalar(theta),
        reference=scalar(0.2),
        initial=scalar(0.0),
        logit_scale=0.5 * (beta or 0.0),
        eps_scale=torch.ones(1),
    )
    penalty = Penalty(mode, lambda_1, beta is not None, alpha=0.1)  # pyright: ignore[reportArgumentType]
    value = penalty.of(toy_actors(theta, model), predictions, 1)
    if value.requires_grad:
        value.sum().backward()
    return value.item(), theta.grad.item() if theta.grad is not None else 0.0


def toy_actors(theta: Tensor, model: Path) -> Actors:
    """Actors of the tiny model, told that the reference's network is yhat = w x."""

    class Line(Actors):
        def blend(self, alpha: float) -> dict[str, Tensor]:
            return {"w": (1 - alpha) * torch.tensor(0.2) + alpha * theta}

        def predict_with(
            self, weights: Weights | None, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]
        ) -> Tensor:
            assert weights is not None
            return weights["w"] * x_t

    family, _ = moving("lora", "hard_copy", model)
    return Line(family, family.denoiser, initial_copy=None, autocast=lambda: torch.autocast("cpu", enabled=False))


@pytest.mark.parametrize(
    ("mode", "value", "gradient"),
    [("log_only", 0.04, 0.0), ("policy_to_init", 0.25, 1.0), ("through_ema", 0.0529, 0.046)],
)
def test_each_regulariser_has_the_value_and_gradient_of_the_reference(
    mode: str, value: float, gradient: float, tiny_model: Path
) -> None:
    assert penalty_of_toy(mode, tiny_model) == pytest.approx((value, gradient), rel=1e-5)


def test_logit_units_multiply_by_half_beta(tiny_model: Path) -> None:
    value, gradient = penalty_of_toy("policy_to_init", tiny_model, lambda_1=0.1, beta=100.0)
    assert (value, gradient) == pytest.approx((0.1 * 50 * 0.25, 0.1 * 50 * 1.0))


def test_a_penalty_is_the_mean_over_both_images_of_a_pair(tiny_model: Path) -> None:
    _, actors = moving("lora", "hard_copy", tiny_model)
    policy = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1)  # winners 1, 2; losers 3, 4
    zero = torch.zeros_like(policy)
    predictions = Predictions(zero, torch.zeros(4, dtype=torch.int64), {}, policy, zero, zero, 1.0, torch.ones(4))
    value = Penalty("policy_to_init", 1.0, False, 1.0).of(actors, predictions, 2)
    assert value.tolist() == [5.0, 10.0]


# --- state ---------------------------------------------------------------------------------------------------------


def test_the_state_comes_back(tiny_model: Path) -> None:
    one = hard_copy(Told(0.0, 0.006))
    what_happened(one, tiny_model, steps=4)
    other = hard_copy(Told())
    other.load_state_dict(one.state_dict())
    assert (other.is_frozen, other.last_drift, other.num_updates) == (True, 0.006, 1)
    assert what_happened(other, tiny_model, steps=4) == ["same", "same"]


def test_a_state_that_lost_a_tensor_is_refused() -> None:
    state = hard_copy(Told()).state_dict()
    del state["is_frozen"]
    with pytest.raises(CheckpointError, match="'is_frozen' is missing"):
        hard_copy(Told()).load_state_dict(state)
