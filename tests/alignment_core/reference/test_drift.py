"""Drift is measured on winners that never change, and is the same however many processes share the work."""

from pathlib import Path

import pytest
import torch

from alignment_core.actors.actors import Actors
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.diffusion.formulas import regression_error
from alignment_core.families.sd import StableDiffusion
from alignment_core.load.pairs import load_pairs
from alignment_core.reference.drift_on_winners import DriftKind, DriftOnWinners, winner_probes
from alignment_core.spec import DiffusionDPOSpec
from tests.alignment_core.actors.test_reference_weights import moving, nudge, update
from tests.alignment_core.tiny import tiny_spec


def pairs_of(family: StableDiffusion, model: Path, pairs: Path, cache_dir: Path) -> PreferencePairs:
    spec = tiny_spec(model, pairs)
    assert isinstance(spec.method, DiffusionDPOSpec)
    loading = load_pairs(spec, spec.method, family, cache_dir)
    while True:
        try:
            next(loading)
        except StopIteration as done:
            return done.value.train


@pytest.fixture
def setting(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> tuple[Actors, PreferencePairs]:
    family, actors = moving("lora", "hard_copy", tiny_model)
    return actors, pairs_of(family, tiny_model, tiny_pairs, cache_dir)


def drift_of(
    actors: Actors, pairs: PreferencePairs, kind: DriftKind, *, num: int = 20, batch_size: int = 8
) -> DriftOnWinners:
    probes = winner_probes(pairs, actors, num=num, batch_size=batch_size, seed=3, rank=0, num_processes=1)
    return DriftOnWinners(kind, actors, probes, lambda values: values)


@pytest.mark.parametrize("kind", ["mse_gap", "eps_dist"])
def test_the_initial_model_has_not_drifted(kind: DriftKind, setting: tuple[Actors, PreferencePairs]) -> None:
    actors, pairs = setting
    drift = drift_of(actors, pairs, kind)
    assert drift.of(actors.reference) == 0.0
    nudge(actors, 0)
    update(actors, 1.0)
    assert drift.of(actors.reference) != 0.0
    assert drift.of(actors.reference) == drift.of(None)  # a copy drifts as far as the policy
    actors.reset_reference()
    assert drift.of(actors.reference) == 0.0


def test_drift_is_what_its_equations_say(setting: tuple[Actors, PreferencePairs]) -> None:
    actors, pairs = setting
    nudge(actors, 0)
    update(actors, 1.0)
    probes = winner_probes(pairs, actors, num=20, batch_size=20, seed=3, rank=0, num_processes=1)
    (probe,) = probes
    inputs = (probe.x_t, probe.times, probe.conditioning)
    ref, init = actors.predict_reference(*inputs), actors.predict_initial(*inputs)
    gap = regression_error(ref, probe.target) - regression_error(init, probe.target)
    assert drift_of(actors, pairs, "mse_gap").of(actors.reference) == pytest.approx(gap.mean().item(), rel=1e-4)
    distance = regression_error(ref, init).mean().item()
    assert drift_of(actors, pairs, "eps_dist").of(actors.reference) == pytest.approx(distance, rel=1e-4)
    error = regression_error(init, probe.target).mean().item()
    assert drift_of(actors, pairs, "mse_gap").unit() == pytest.approx(error, rel=1e-5)


def test_timesteps_are_stratified_and_draws_never_change(setting: tuple[Actors, PreferencePairs]) -> None:
    actors, pairs = setting

    def probes(batch_size: int) -> list[torch.Tensor]:
        found = winner_probes(pairs, actors, num=20, batch_size=batch_size, seed=3, rank=0, num_processes=1)
        return [torch.cat([getattr(probe, name) for probe in found]) for name in ("times", "x_t", "target")]

    once, again = probes(20), probes(7)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    assert torch.bincount(once[0] // 100, minlength=10).tolist() == [2] * 10


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_winners_and_agree(num_processes: int, setting: tuple[Actors, PreferencePairs]) -> None:
    actors, pairs = setting
    nudge(actors, 0)
    sums = []
    for rank in range(num_processes):
        share = winner_probes(pairs, actors, num=20, batch_size=4, seed=3, rank=rank, num_processes=num_processes)
        part: list[torch.Tensor] = []

        def keep(values: torch.Tensor, part: list[torch.Tensor] = part) -> torch.Tensor:
            part.append(values)
            return values

        DriftOnWinners("mse_gap", actors, share, keep).of(None)
        sums += part
    total = torch.stack(sums).sum(dim=0)
    assert total[1] == 20
    assert (total[0] / total[1]).item() == pytest.approx(drift_of(actors, pairs, "mse_gap").of(None), rel=1e-4)
