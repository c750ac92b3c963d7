"""The outbox and its deliveries: told with the change and never without it, sent by one sender at a time, tried again, given up."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from alignment_core.events import EvaluationCompleted, ResultSelected, RunCompleted, WarningRaised
from alignment_core.reports import DatasetReport
from alignment_core.spec import JobSpec
from service.api.schemas.datasets import DATASET_REPORT_EXAMPLE
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import audit_lists, counts, datasets, deliveries, events, jobs, leases, sweeps, webhooks
from service.store.database import Store, now
from service.store.deliveries import Answer
from service.store.fence import Fenced
from service.store.models import Webhook, WebhookDelivery
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.projects import create_project
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord
from service.store.records.webhooks import DeliveryClaim, DeliveryRecord, DeliveryState, WebhookRecord
from service.store.retry_schedule import WAITS

URL = "https://hooks.example.org/attune"
DAYS = timedelta(days=5)
GOOD, BAD = Answer(200, 12), Answer(500, 12, answer="sorry")
NewJob = Callable[[], JobRecord]


def webhook(store: Store, *types: str, project_id: str = PROJECT, **values: Any) -> WebhookRecord:
    values = {"event_types": types or None, "sealed_secret": "sealed", "most": 100, **values}
    return webhooks.create(store, project_id=project_id, url=URL, **values)


def sent(store: Store, hook: WebhookRecord, **filters: Any) -> Sequence[DeliveryRecord]:
    return deliveries.list_deliveries(store, hook.project_id, hook.id, limit=100, **filters).data[::-1]


def told(store: Store, hook: WebhookRecord) -> list[dict[str, Any]]:
    """The payloads for a webhook, oldest first."""
    return [json.loads(one.body) for one in sent(store, hook)]


def types(store: Store, hook: WebhookRecord) -> list[str]:
    return [one["type"] for one in told(store, hook)]


def finish(store: Store, job: JobRecord, end: leases.End = "succeeded", error: JobError | None = None) -> JobRecord:
    claim = leases.claim(store, job.id, "worker", 60)
    assert claim is not None
    return leases.finish(store, job.id, claim.attempt, end, error)


def error(code: str) -> JobError:
    return JobError(code=code, message="/home/of/somebody is full of a red circle", category="user")


def claimed(store: Store) -> DeliveryClaim:
    found = deliveries.claim(store, 60)
    assert found is not None
    return found


def tell(store: Store, hook: WebhookRecord, number: int = 1) -> None:
    for _ in range(number):
        deliveries.ping(store, hook.project_id, hook.id)
    with store.write() as session:  # as a ping is sent once
        session.execute(sa.update(WebhookDelivery).values(type="job.succeeded"))


def make_due(store: Store) -> None:
    with store.write() as session:
        session.execute(sa.update(WebhookDelivery).values(due_at=now(session)))


# --- what is told --------------------------------------------------------------------------------------------------


def test_a_job_that_ends_is_told_with_the_numbers_that_matter(store: Store, job: JobRecord) -> None:
    hook = webhook(store)
    claim = leases.claim(store, job.id, "worker", 60)
    assert claim is not None
    chosen = ResultSelected(step=40, path="step-40", selected_by="last_step", last_step=40, message="the last")
    proof = EvaluationCompleted(step=40, path="report.json", report=REPORT_EXAMPLE)
    for event in (chosen, proof, RunCompleted(step=40)):
        events.record_event(store, job.id, claim.attempt, event)
    ended = leases.finish(store, job.id, claim.attempt, "succeeded")
    (payload,) = told(store, hook)
    (line,) = REPORT_EXAMPLE["rewards"]
    assert (payload["type"], payload["version"], payload["data"]["id"]) == ("job.succeeded", 1, job.id)
    assert payload["timestamp"] == ended.model_dump(mode="json")["finished_at"]
    assert payload["data"]["gain"] == {
        "reward": line["name"],
        "gain": line["gain"],
        "low": line["gain_interval"]["low"],
        "high": line["gain_interval"]["high"],
    }


def test_a_job_that_a_guard_stopped_is_told_as_such(store: Store, job: JobRecord) -> None:
    hook = webhook(store)
    claim = leases.claim(store, job.id, "worker", 60)
    assert claim is not None
    said = [
        WarningRaised(code="reward_hacking", message="colour rises, diversity falls", step=20),
        WarningRaised(code="precision_too_coarse", message="no guard", step=20),
        ResultSelected(
            step=20,
            path="step-20",
            selected_by="rollback",
            last_step=24,
            stopped_by="reward_hacking",
            message="a guard",
        ),
    ]
    events.record_events(store, job.id, claim.attempt, said)
    leases.finish(store, job.id, claim.attempt, "succeeded")
    spoke, stopped = told(store, hook)
    assert (spoke["type"], spoke["data"]["guard"], spoke["data"]["step"]) == ("job.guard_spoke", "reward_hacking", 20)
    assert (stopped["type"], stopped["data"]["state"]) == ("job.stopped", "succeeded")
    assert stopped["data"]["stopped_by"] == "reward_hacking"


def test_failures_and_cancels_are_told_without_what_a_message_may_hold(store: Store, new_job: NewJob) -> None:
    hook = webhook(store)
    finish(store, new_job(), "failed", error("model_not_found"))
    jobs.request_cancel(store, PROJECT, new_job().id)
    failed, cancelled = told(store, hook)
    assert (failed["type"], failed["data"]["error_code"]) == ("job.failed", "model_not_found")
    assert (cancelled["type"], cancelled["data"]["state"]) == ("job.cancelled", "cancelled")
    assert "red circle" not in json.dumps([failed, cancelled])


def test_a_lost_job_that_is_given_up_is_told(store: Store, job: JobRecord) -> None:
    hook = webhook(store)
    leases.claim(store, job.id, "worker", -1)
    leases.requeue_lost(store, max_attempts=1)
    assert [one["data"]["error_code"] for one in told(store, hook)] == ["attempts_exhausted"]


def test_only_who_asked_for_an_event_hears_of_it(store: Store, new_job: NewJob) -> None:
    other = create_project(store, "other")
    everything, failures = webhook(store), webhook(store, "job.failed", "sweep.ended")
    off, foreign = webhook(store, enabled=False), webhook(store, project_id=other.id)
    finish(store, new_job())
    finish(store, new_job(), "failed", error("oops"))
    assert types(store, everything) == ["job.succeeded", "job.failed"]
    assert types(store, failures) == ["job.failed"]
    assert types(store, off) == types(store, foreign) == []


def test_what_is_rolled_back_is_told_to_nobody(store: Store, job: JobRecord) -> None:
    hook = webhook(store)
    with pytest.raises(Fenced):
        leases.finish(store, job.id, 7, "succeeded")
    with pytest.raises(RuntimeError, match="crash"):
        _cancel_and_crash(store, job)
    assert types(store, hook) == []
    found = jobs.get(store, PROJECT, job.id)
    assert found is not None
    assert found.state == "queued"


def _cancel_and_crash(store: Store, job: JobRecord) -> None:
    with store.write() as session:
        row = jobs.row_of(session, PROJECT, job.id)
        assert row is not None
        jobs.enter(session, row, "cancelled", now(session))
        session.flush()
        raise RuntimeError("crash")


def test_checked_uploads_are_told(store: Store) -> None:
    hook = webhook(store)
    for usable, kind in ((True, "data"), (False, "data")):
        row = datasets.create(store, project_id=PROJECT, filename="pairs.parquet", name="pairs", kind=kind)
        datasets.uploaded(store, row.id, size_bytes=1, sha256="0" * 64, object_key="key")
        claim = datasets.claim(store, row.id, "worker", 60)
        assert claim is not None
        report = DatasetReport.model_validate({**DATASET_REPORT_EXAMPLE, "num_usable_rows": 10 if usable else 0})
        datasets.set_report(store, row.id, claim.attempt, report)
    lora = datasets.create(store, project_id=PROJECT, filename="style.safetensors", kind="lora")
    datasets.upload_failed(store, lora.id, error("upload_interrupted"))
    assert types(store, hook) == ["dataset.ready", "dataset.failed", "weights.failed"]
    ready, failed, _ = (one["data"] for one in told(store, hook))
    assert (ready["num_rows"], ready["num_usable_rows"]) == (DATASET_REPORT_EXAMPLE["num_rows"], 10)
    assert failed["error_code"] == "dataset_unusable"


def test_a_sweep_is_told_once_its_last_job_has_ended_however_many_end_at_once(store: Store, spec: JobSpec) -> None:
    hook = webhook(store, "sweep.ended")
    queued = {"estimate": None, "card_gib": None, "needs": [], "needs_prompts": [], "metadata": {}, "name": None}
    trials = [({"seed": seed}, {**queued, "spec": spec.model_dump(mode="json")}) for seed in range(4)]
    kept = sweeps.create(store, project_id=PROJECT, trials=trials, search={"type": "list"}, at_once=4)
    for _ in range(2):  # the second finds that nothing waits
        sweeps.feed_all(store, lambda _: None)
    ids = [trial.job_id for trial in sweeps.trials_of(store, kept.id)]
    together = Barrier(4)

    def end(job_id: str) -> None:
        claim = leases.claim(store, job_id, "worker", 60)
        assert claim is not None
        together.wait(timeout=30)
        leases.finish(store, job_id, claim.attempt, "succeeded")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(end, ids))
    (payload,) = told(store, hook)
    assert payload["data"]["id"] == kept.id
    assert (payload["data"]["state"], payload["data"]["num_succeeded"]) == ("ended", 4)


def test_a_sweep_that_is_cancelled_is_told_once(store: Store, spec: JobSpec) -> None:
    hook = webhook(store, "sweep.ended")
    queued = {"estimate": None, "card_gib": None, "needs": [], "needs_prompts": [], "metadata": {}, "name": None}
    trials = [({"seed": seed}, {**queued, "spec": spec.model_dump(mode="json")}) for seed in range(3)]
    kept = sweeps.create(store, project_id=PROJECT, trials=trials, search={"type": "list"}, at_once=2)
    sweeps.feed_all(store, lambda _: None)
    for _ in range(2):
        sweeps.request_cancel(store, PROJECT, kept.id)
    assert [one["data"]["state"] for one in told(store, hook)] == ["cancelled"]
    assert told(store, hook)[0]["data"]["num_cancelled"] == 2


def test_a_webhook_that_goes_while_a_job_ends_takes_nothing_with_it(store: Store, new_job: NewJob) -> None:
    for _ in range(5):
        hook, job = webhook(store), new_job()
        together = Barrier(2)

        def delete(together: Barrier = together, hook: WebhookRecord = hook) -> None:
            together.wait(timeout=30)
            webhooks.delete(store, PROJECT, hook.id)

        def end(together: Barrier = together, job: JobRecord = job) -> JobRecord:
            together.wait(timeout=30)
            return finish(store, job)

        with ThreadPoolExecutor(2) as pool:
            _, ended = pool.submit(delete), pool.submit(end)
        assert ended.result().state == "succeeded"
        assert webhooks.get(store, PROJECT, hook.id) is None


# --- sending -------------------------------------------------------------------------------------------------------


def test_of_two_senders_one_gets_a_delivery(store: Store) -> None:
    hooks = [webhook(store) for _ in range(6)]
    for hook in hooks:
        deliveries.ping(store, PROJECT, hook.id)
    together = Barrier(4)

    def send() -> list[str]:
        together.wait(timeout=30)
        found = []
        while (one := deliveries.claim(store, 60)) is not None:
            found.append(one.id)
        return found

    with ThreadPoolExecutor(4) as pool:
        taken = [one for ids in [pool.submit(send) for _ in range(4)] for one in ids.result()]
    taken += [
        one.id for one in iter(lambda: deliveries.claim(store, 60), None)
    ]  # PostgreSQL may skip what is just looked at
    assert sorted(taken) == sorted(one.id for hook in hooks for one in sent(store, hook))
    assert len(set(taken)) == len(taken) == 6


def test_one_address_keeps_few_senders_busy(store: Store) -> None:
    slow, quick = webhook(store), webhook(store)
    tell(store, slow, 5)
    tell(store, quick)
    taken = [one.webhook_id for one in iter(lambda: deliveries.claim(store, 60), None)]
    assert taken == [slow.id] * deliveries.AT_ONCE + [quick.id]


def test_a_sender_that_was_lost_notes_nothing_any_more(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook)
    lost = deliveries.claim(store, -1)
    assert lost is not None
    again = claimed(store)
    assert (again.id, again.attempt) == (lost.id, 2)
    assert deliveries.record(store, lost, BAD, DAYS) is None
    assert deliveries.record(store, again, GOOD, DAYS) == "delivered"
    assert deliveries.record(store, again, BAD, DAYS) is None
    (one,) = sent(store, hook)
    assert (one.state, one.attempt, [each.status for each in one.tries], one.due_at) == ("delivered", 2, [200], None)


def test_what_fails_is_tried_again_later_and_given_up_in_the_end(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook)
    states: list[DeliveryState | None] = []
    for number in range(len(WAITS) + 1):
        states.append(deliveries.record(store, claimed(store), BAD, DAYS))
        (one,) = sent(store, hook)
        assert deliveries.claim(store, 60) is None
        if number < len(WAITS):
            assert one.due_at is not None
            wait = one.due_at - one.tries[-1].time
            assert 0.8 <= wait / WAITS[number] <= 1.2
            make_due(store)
    assert states == ["pending"] * len(WAITS) + ["failed"]
    assert [(one.status, one.answer) for one in sent(store, hook)[0].tries] == [(500, "sorry")] * (len(WAITS) + 1)


def test_a_receiver_that_says_when_is_asked_then(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook)
    deliveries.record(store, claimed(store), Answer(429, 5, retry_after=timedelta(hours=2)), DAYS)
    (one,) = sent(store, hook)
    assert one.due_at is not None
    assert one.due_at - one.tries[-1].time >= timedelta(hours=2)


def test_an_address_that_is_gone_is_asked_no_more_and_that_is_said(store: Store, new_job: NewJob) -> None:
    gone, other = webhook(store), webhook(store, "webhook.disabled")
    tell(store, gone)
    assert deliveries.record(store, claimed(store), Answer(410, 5), DAYS) == "failed"
    found = webhooks.get(store, PROJECT, gone.id)
    assert found is not None
    assert (found.enabled, found.disabled_because) == (False, "gone")
    assert [(one["type"], one["data"]["id"]) for one in told(store, other)] == [("webhook.disabled", gone.id)]
    (entry,) = audit_lists.list_entries(store, PROJECT, action="webhook disabled").data
    assert (entry.object_ids, entry.key_id) == ([gone.id], None)
    finish(store, new_job())
    assert len(sent(store, gone)) == 1


def test_an_address_that_fails_for_days_is_asked_no_more(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook, deliveries.FAILURES_BEFORE_DISABLED)
    for number in range(deliveries.FAILURES_BEFORE_DISABLED):
        found = webhooks.get(store, PROJECT, hook.id)
        assert found is not None
        assert found.enabled, number
        deliveries.record(store, claimed(store), BAD, DAYS)
        with store.write() as session:  # it failed long ago for the first time
            session.execute(sa.update(Webhook).values(failing_since=now(session) - DAYS))
    found = webhooks.get(store, PROJECT, hook.id)
    assert found is not None
    assert (found.enabled, found.disabled_because) == (False, "failing")
    make_due(store)
    assert deliveries.claim(store, 60) is None
    change = {"url": URL, "event_types": None, "description": None}
    on = webhooks.change(store, PROJECT, hook.id, **change, enabled=True)
    assert on is not None
    assert (on.disabled_because, on.failing_since) == (None, None)
    assert deliveries.claim(store, 60) is not None  # what waited goes on


def test_a_good_answer_forgives_what_was_before(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook, 2)
    deliveries.record(store, claimed(store), BAD, DAYS)
    found = webhooks.get(store, PROJECT, hook.id)
    assert found is not None
    assert found.failing_since is not None
    deliveries.record(store, claimed(store), GOOD, DAYS)
    found = webhooks.get(store, PROJECT, hook.id)
    assert found is not None
    assert found.failing_since is None


def test_a_ping_is_sent_once_to_a_webhook_that_is_off_too(store: Store) -> None:
    hook = webhook(store, enabled=False)
    deliveries.ping(store, PROJECT, hook.id)
    assert deliveries.record(store, claimed(store), BAD, DAYS) == "failed"
    found = webhooks.get(store, PROJECT, hook.id)
    assert found is not None
    assert found.failing_since is None


def test_redelivery_is_due_at_once_under_the_same_id_with_all_its_tries(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook)
    first = claimed(store)
    deliveries.record(store, first, GOOD, DAYS)
    again = deliveries.redeliver(store, PROJECT, hook.id, first.id)
    assert again is not None
    assert (again.state, again.ended_at) == ("pending", None)
    second = claimed(store)
    assert (second.id, second.body, second.attempt) == (first.id, first.body, 2)
    assert deliveries.record(store, second, BAD, DAYS) == "pending"
    assert len(sent(store, hook)[0].tries) == 2
    webhooks.change(store, PROJECT, hook.id, url=URL, event_types=None, description=None, enabled=False)
    with pytest.raises(deliveries.WebhookOff):
        deliveries.redeliver(store, PROJECT, hook.id, first.id)


# --- secrets, bounds, ends -----------------------------------------------------------------------------------------


def test_while_a_secret_is_rotated_both_sign(store: Store) -> None:
    hook = webhook(store)
    tell(store, hook, 2)
    webhooks.rotate_secret(store, PROJECT, hook.id, "newer", timedelta(hours=1))
    assert claimed(store).secrets == ("newer", "sealed")
    with store.write() as session:
        session.execute(sa.update(Webhook).values(old_secret_until=now(session)))
    assert claimed(store).secrets == ("newer",)


def test_no_record_has_a_secret(store: Store) -> None:
    hook = webhook(store)
    assert "sealed" not in repr(hook) + repr(webhooks.list_webhooks(store, PROJECT).data)


def test_a_project_has_a_bounded_number_of_webhooks_however_many_are_made_at_once(store: Store) -> None:
    together = Barrier(4)

    def make() -> bool:
        together.wait(timeout=30)
        try:
            webhook(store, most=2)
        except webhooks.TooMany:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        made = [one.result() for one in [pool.submit(make) for _ in range(4)]]
    assert sum(made) == 2


def test_deliveries_go_with_their_webhook_and_with_time(store: Store) -> None:
    hook, other = webhook(store), webhook(store)
    tell(store, hook, 2)
    tell(store, other, 2)
    assert webhooks.delete(store, PROJECT, hook.id) == hook.id
    assert sent(store, hook) == ()
    old, fresh = sent(store, other)
    with store.write() as session:
        past = now(session) - timedelta(days=31)
        session.execute(sa.update(WebhookDelivery).where(WebhookDelivery.id == old.id).values(created_at=past))
    assert deliveries.forget_old(store, 30) == 1
    assert [one.id for one in sent(store, other)] == [fresh.id]
    assert counts.deliveries_by_state(store) == {"pending": 1, "delivered": 0, "failed": 0}


def test_another_projects_webhooks_are_not_there(store: Store) -> None:
    other = create_project(store, "other")
    hook = webhook(store)
    one = deliveries.ping(store, PROJECT, hook.id)
    assert one is not None
    assert webhooks.get(store, other.id, hook.id) is None
    assert webhooks.delete(store, other.id, hook.id) is None
    assert webhooks.rotate_secret(store, other.id, hook.id, "mine", DAYS) is None
    assert deliveries.ping(store, other.id, hook.id) is None
    assert deliveries.get(store, other.id, hook.id, one.id) is None
    assert deliveries.redeliver(store, other.id, hook.id, one.id) is None
    assert deliveries.list_deliveries(store, other.id, hook.id).data == ()
