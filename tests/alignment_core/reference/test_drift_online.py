"""Online drift is measured on states of the initial model that never change, with guidance."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignment_core.diffusion.formulas import regression_error
from alignment_core.methods.d3po import D3PO
from alignment_core.reference.drift_on_states import DriftOnStates, StateProbe
from alignment_core.rollouts.setup import RolloutSetup
from tests.alignment_core.actors.test_reference_weights import nudge
from tests.alignment_core.load.test_combinations import Folders, load, spec_of


@pytest.fixture
def measured(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> tuple[RolloutSetup, DriftOnStates]:
    folders = Folders(tiny_model, tiny_pairs, cache_dir)
    run = load(spec_of(folders, "d3po", "copied", "uniform"), folders)
    assert isinstance(run.method, D3PO)
    return run.method.setup, DriftOnStates(run.method.setup, run.actors, num=8, batch_size=3)


def probes_of(drift: DriftOnStates) -> list[StateProbe]:
    """Those of every state; they are drawn when drift is first measured."""
    drift.of(None)
    return list(drift._probes.values())


def test_the_initial_model_has_not_drifted_and_a_copy_drifts_as_the_policy_does(
    measured: tuple[RolloutSetup, DriftOnStates],
) -> None:
    _, drift = measured
    actors = drift.actors
    assert drift.of(actors.reference) == drift.of(None) == 0.0
    nudge(actors, 0)
    assert drift.of(actors.reference) == 0.0 < drift.of(None)
    with torch.no_grad():
        assert drift.of(actors.blend(1.0)) == drift.of(None)


def test_states_are_spread_over_the_steps_and_are_the_same_whatever_the_batch(
    measured: tuple[RolloutSetup, DriftOnStates],
) -> None:
    setup, drift = measured
    nudge(drift.actors, 0)  # the policy has no part in them
    again = DriftOnStates(setup, drift.actors, num=8, batch_size=8)
    timesteps = torch.cat([probe.times for probe in probes_of(drift)])
    assert timesteps.tolist() == [751, 751, 501, 501, 251, 251, 1, 1]
    (whole,) = probes_of(again)
    assert torch.equal(whole.times, timesteps)
    assert torch.allclose(whole.x_t, torch.cat([probe.x_t for probe in probes_of(drift)]), atol=1e-5)
    assert again.of(None) == pytest.approx(drift.of(None), rel=1e-4)
    assert len({tuple(state.flatten().tolist()) for state in whole.x_t}) == 8


def test_drift_is_of_guided_predictions(measured: tuple[RolloutSetup, DriftOnStates]) -> None:
    setup, drift = measured
    nudge(drift.actors, 0)
    (probe,) = probes_of(DriftOnStates(setup, drift.actors, num=8, batch_size=8))
    rollouts = drift._rollouts

    def prediction(trained: bool, conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
        predict = drift.actors.predict_policy if trained else drift.actors.predict_initial
        return predict(probe.x_t, probe.times, conditioning).detach()

    own = rollouts.conditioning_of(probe.rows)
    empty = {name: value.expand_as(own[name]) for name, value in rollouts.empty.items()}
    policy, initial = (
        prediction(trained, empty) + 2.0 * (prediction(trained, own) - prediction(trained, empty))
        for trained in (True, False)
    )
    assert drift.of(None) == pytest.approx(regression_error(policy, initial).mean().item(), rel=1e-3)
    assert drift.unit() == pytest.approx(initial.square().mean().item(), rel=1e-4)


def test_another_seed_measures_on_other_states(measured: tuple[RolloutSetup, DriftOnStates]) -> None:
    setup, drift = measured
    other = DriftOnStates(replace(setup, seed=8), drift.actors, num=8, batch_size=8)
    assert not torch.allclose(probes_of(other)[0].x_t[:3], probes_of(drift)[0].x_t)
