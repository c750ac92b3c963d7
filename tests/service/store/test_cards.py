"""The workers' cards and how fast jobs were there, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest

from alignment_core.events import PhaseChanged, RunCompleted, RunStarted
from alignment_core.spec import JobSpec
from service.store import cards, jobs, leases
from service.store.database import Store
from service.store.events import first_of, record_events
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.catalog import CardRecord

GPU = CardRecord(name="NVIDIA L4", device="cuda", memory_bytes=24 * 2**30)
CPU = CardRecord(name="a processor, 8 threads", device="cpu", memory_bytes=64 * 2**30)


def test_a_card_is_known_once_however_often_it_is_announced(store: Store) -> None:
    for card in (GPU, CPU, GPU):
        cards.announce(store, card)
    assert cards.known(store) == (CPU, GPU)


def test_what_is_expected_lies_between_what_was_measured_and_the_bounds_beyond(store: Store) -> None:
    cards.learn(store, GPU.name, "sd", {"training": 10.0})
    once = cards.rates_of(store, GPU.name, "sd")["training"]
    assert (once.low, once.expected, once.high, once.source) == (5.0, 10.0, 20.0, "jobs")
    cards.learn(store, GPU.name, "sd", {"training": 20.0, "caching": 3.0})
    rates = cards.rates_of(store, GPU.name, "sd")
    assert (rates["training"].low, rates["training"].expected, rates["training"].high) == (8.0, 15.0, 25.0)
    assert rates["caching"].expected == 3.0
    assert cards.rates_of(store, GPU.name, "sdxl") == {}


def test_turns_of_a_phase_are_added_up(store: Store, spec: JobSpec) -> None:
    job = jobs.create(store, project_id=DEFAULT_PROJECT_ID, spec=spec)
    claim = leases.claim(store, job.id, "worker", 60.0)
    assert claim is not None
    start = datetime(2026, 11, 20, tzinfo=UTC)
    phases = ((5, "caching"), (8, "training"), (18, "saving"), (19, "training"))
    told = [
        RunStarted(
            time=start, spec_sha256="0", learning_rate=1, examples_per_step=1, total_steps=1, device="cpu",
            precision="fp32", versions={},
        ),
        *(PhaseChanged.model_validate({"time": start + timedelta(seconds=at), "phase": name}) for at, name in phases),
        RunCompleted(time=start + timedelta(seconds=24), step=1),
    ]  # fmt: skip
    record_events(store, job.id, claim.attempt, told)
    seconds = cards.phase_seconds(store, job.id, claim.attempt)
    assert seconds == pytest.approx({"loading": 5, "caching": 3, "training": 15, "saving": 1})
    started = first_of(store, job.id, "run_started")
    assert started is not None
    assert started["device"] == "cpu"
