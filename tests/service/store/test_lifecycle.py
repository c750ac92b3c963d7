"""Any sequence of requests, claims, losses and late writes keeps the promises that a job makes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from alignment_core.events import RunCompleted
from alignment_core.spec import JobSpec
from service.store import events, jobs, leases
from service.store.database import Store
from service.store.fence import Fenced
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord
from service.store.states import HELD, InvalidTransition
from tests.service.store.test_events import step
from tests.service.store.test_leases import started

MAX_ATTEMPTS = 3
SLOW = (HealthCheck.too_slow,)  # on a busy machine a commit takes its time
attempts = st.integers(0, 4)


def lifecycle(store: Store, spec: JobSpec) -> type[RuleBasedStateMachine]:
    class Lifecycle(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.before = jobs.create(store, project_id=PROJECT, spec=spec)
            self.job_id = self.before.id

        def was_resumed(self, after: JobRecord) -> bool:
            error = self.before.error
            return after.state == "queued" and error is not None and error.retryable

        @property
        def now(self) -> JobRecord:
            found = jobs.get(store, PROJECT, self.job_id)
            assert found is not None
            return found

        @contextmanager
        def fenced_unless_held_by(self, attempt: int) -> Iterator[None]:
            """What `attempt` does may be refused; where it does not hold the job, it must be, and change nothing."""
            before, told = self.now, events.list_events(store, PROJECT, self.job_id)
            holds = before.state in HELD and before.attempt == attempt
            try:
                yield
                assert holds, f"attempt {attempt} wrote to a job that is {before.state} under {before.attempt}"
            except Fenced:
                assert not holds
                assert (self.now, events.list_events(store, PROJECT, self.job_id)) == (before, told)
            except InvalidTransition:
                assert holds
                assert self.now == before

        @rule(verb=st.sampled_from([jobs.request_cancel, jobs.request_pause, jobs.resume]))
        def ask(self, verb) -> None:
            before = self.now
            try:
                verb(store, PROJECT, self.job_id)
            except InvalidTransition:
                assert self.now == before

        @rule(lease_seconds=st.sampled_from([-1.0, 60.0]))
        def claim(self, lease_seconds: float) -> None:
            before = self.now
            claim = leases.claim(store, self.job_id, "w", lease_seconds)
            assert (claim is not None) == (before.state == "queued")
            assert claim is None or claim.attempt == before.attempt + 1

        @rule(attempt=attempts)
        def step(self, attempt: int) -> None:
            with self.fenced_unless_held_by(attempt):
                events.record_events(store, self.job_id, attempt, [started(), step(1)])

        @rule(attempt=attempts)
        def complete(self, attempt: int) -> None:
            with self.fenced_unless_held_by(attempt):
                events.record_event(store, self.job_id, attempt, RunCompleted(step=40))

        @rule(attempt=attempts, end=st.sampled_from(["succeeded", "stopped"]))
        def finish(self, attempt: int, end: leases.End) -> None:
            with self.fenced_unless_held_by(attempt):
                leases.finish(store, self.job_id, attempt, end)

        @rule(attempt=attempts, retryable=st.booleans())
        def fail(self, attempt: int, retryable: bool) -> None:
            with self.fenced_unless_held_by(attempt):
                error = JobError(code="crashed", message="it crashed", category="system", retryable=retryable)
                leases.finish(store, self.job_id, attempt, "failed", error)

        @rule(attempt=attempts)
        def suspend(self, attempt: int) -> None:
            with self.fenced_unless_held_by(attempt):
                error = JobError(code="object_store_full", message="no room", category="capacity", retryable=True)
                leases.suspend(store, self.job_id, attempt, error)

        @rule(attempt=attempts)
        def give_back(self, attempt: int) -> None:
            with self.fenced_unless_held_by(attempt):
                leases.give_back(store, self.job_id, attempt)

        @rule(attempt=attempts, lease_seconds=st.sampled_from([-1.0, 60.0]))
        def renew(self, attempt: int, lease_seconds: float) -> None:
            before = self.now
            signal = leases.renew(store, self.job_id, attempt, lease_seconds)
            assert (signal == "lost") == (before.state not in HELD or before.attempt != attempt)

        @rule()
        def sweep(self) -> None:
            leases.requeue_lost(store, MAX_ATTEMPTS)

        @invariant()
        def promises_hold(self) -> None:
            before, after = self.before, self.now
            assert after.attempt >= before.attempt
            assert after.last_seq >= before.last_seq
            assert not before.is_terminal or after == before or self.was_resumed(after), "other ends are never left"
            assert (after.worker_id is not None) == (after.lease_expires_at is not None) == (after.state in HELD)
            assert (after.error is not None) >= (after.state == "failed")
            assert after.error is None or after.state in ("failed", "paused")
            assert (after.finished_at is not None) == after.is_terminal
            assert after.state not in ("cancelling", "cancelled") or after.cancel_requested
            assert [event.seq for event in events.list_events(store, PROJECT, self.job_id)] == list(
                range(1, after.last_seq + 1)
            )[:100]
            self.before = after

    return Lifecycle


def test_a_job_keeps_its_promises_whatever_happens(store: Store, spec: JobSpec) -> None:
    run_state_machine_as_test(
        lifecycle(store, spec),
        settings=settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=SLOW),
    )


@pytest.mark.slow
def test_a_job_keeps_its_promises_for_longer(store: Store, spec: JobSpec) -> None:
    run_state_machine_as_test(
        lifecycle(store, spec),
        settings=settings(max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=SLOW),
    )
