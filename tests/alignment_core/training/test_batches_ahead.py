"""The next batch is made while a step runs: the same batches, the same errors, and no thread that outlives them."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment_core import align
from alignment_core.datasets.pairs import PairTensors, PreferencePairs
from alignment_core.events import StepCompleted
from alignment_core.spec import JobSpec
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

PATIENCE_SECONDS = 60.0
TRAINING = {"steps": 3, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
LEARNT = {"type": "timestep_aware", "num_bins": 2, "loss_weight": {"type": "variance", "min_samples": 2}}


def spec_of(model: Path, pairs: Path, method: str = "diffusion_dpo", **changes: Any) -> JobSpec:
    asked = {"type": method, "dataset": {"type": "local", "path": str(pairs)}, "caption_dropout": 0.3}
    return tiny_spec(model, pairs, **{"method": asked, "training": TRAINING, "evaluation": UNJUDGED, **changes})


def threads_ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


class Watched:
    """`PreferencePairs.batch`, each call told with its thread; the one with the number `broken` fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: int | None = None) -> None:
        self.threads: list[str] = []
        self.broken, self._own = broken, PreferencePairs.batch
        monkeypatch.setattr(PreferencePairs, "batch", lambda pairs, *args: self.batch(pairs, *args))

    def batch(self, pairs: PreferencePairs, *args: Any) -> PairTensors:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == self.broken:
            raise OSError("the disk is gone")
        return self._own(pairs, *args)


def test_one_batch_is_made_ahead_in_a_thread_of_its_own_and_no_more(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, watched = loaded(spec_of(tiny_model, tiny_pairs).resolved(), cache_dir), Watched(monkeypatch)
    batches = run.method.batches(run.actors, run.timesteps, 0)
    assert isinstance(batches, Iterator)
    for taken in (1, 2, 3):
        next(batches)
        until = time.monotonic() + PATIENCE_SECONDS
        while len(watched.threads) <= taken and time.monotonic() < until:
            time.sleep(0.001)
        assert len(watched.threads) == taken + 1
    assert all(name.startswith("ahead") for name in watched.threads)
    del batches
    assert not threads_ahead()


@pytest.mark.parametrize(("method", "size"), [("diffusion_dpo", 2), ("diffusion_kto", 8)])
def test_a_run_is_the_one_whose_batches_are_made_when_they_are_asked_for(
    method: str,
    size: int,
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = {**TRAINING, "batch_size": size}
    spec = spec_of(tiny_model, tiny_pairs, method, timesteps=LEARNT, training=training)
    ahead = losses(spec, tmp_path / "ahead", cache_dir)
    monkeypatch.setattr("alignment_core.methods.pair_batches.read_ahead", lambda items: items)
    monkeypatch.setattr("alignment_core.methods.diffusion_kto.read_ahead", lambda items: items)
    assert ahead == losses(spec, tmp_path / "asked", cache_dir)
    assert len(ahead) == 3


def losses(spec: JobSpec, workdir: Path, cache_dir: Path) -> list[dict[str, float]]:
    return [event.metrics for event in align(spec, workdir, cache_dir=cache_dir) if isinstance(event, StepCompleted)]


def test_what_a_strategy_has_observed_changes_no_draw(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> None:
    strategy = loaded(spec_of(tiny_model, tiny_pairs, timesteps=LEARNT).resolved(), cache_dir).timesteps

    def drawn() -> list[torch.Tensor]:
        t = strategy.sample(64, torch.Generator().manual_seed(1))
        return [t, strategy.reward_scale(t)]

    before, weights = drawn(), strategy.loss_weight(drawn()[0])
    for _ in range(20):
        t = strategy.sample(512, torch.Generator().manual_seed(2))
        strategy.observe(t, torch.randn(512, generator=torch.Generator().manual_seed(3)) * (1 + t))
    assert all(map(torch.equal, before, drawn()))
    assert not torch.equal(weights, strategy.loss_weight(before[0]))


def test_what_cannot_be_read_is_raised_when_its_turn_has_come(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, done = Watched(monkeypatch, broken=4), list[int]()
    events = align(spec_of(tiny_model, tiny_pairs), tmp_path, cache_dir=cache_dir)
    with pytest.raises(OSError, match="the disk is gone"):
        done.extend(event.step for event in events if isinstance(event, StepCompleted))
    assert done == [1]
    assert len(watched.threads) == 4
    assert not threads_ahead()


def test_no_thread_outlives_a_run_that_ends_or_is_left(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs)
    with closing(align(spec, tmp_path / "left", cache_dir=cache_dir)) as run:
        next(event for event in run if isinstance(event, StepCompleted))
        assert len(threads_ahead()) == 1
    assert not threads_ahead()
    losses(spec, tmp_path / "ended", cache_dir)
    assert not threads_ahead()
