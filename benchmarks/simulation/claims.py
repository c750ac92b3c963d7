"""What has to be true after every step: each claim compares the record kept outside with what the service holds."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from benchmarks.simulation.rows import Rows, subject_of
from benchmarks.simulation.told import Told
from service.store.limits import Limits
from service.store.states import HELD, TERMINAL

AT_REST = (*TERMINAL, "paused")
LONGEST_WAIT = timedelta(hours=12)  # ten of them, give or take a fifth
ROUNDING = 0.1  # seconds: a millisecond passes with every reading of the clock


def check(told: Told, rows: Rows, keys: set[str], time: datetime, limits: Limits) -> None:
    jobs_are_as_told(told, rows)
    leases_belong_to_held_jobs(rows)
    no_event_is_lost(told, rows)
    no_metric_is_lost(told, rows)
    no_checkpoint_is_lost(told, rows)
    no_output_is_lost(told, rows)
    uploads_and_exports_are_as_told(told, rows)
    no_image_and_no_vote_is_lost(told, rows)
    webhooks_are_told_once(told, rows, time)
    what_is_named_is_there(told, rows, keys)
    sweeps_keep_to_their_number(told, rows)
    quotas_are_kept(told, rows, time, limits)
    usage_is_what_the_attempts_took(told, rows)


def check_deed(action: str, written: Sequence[str], *, changed: bool) -> None:
    assert list(written) in ([], [action]), f"{action} was written down as {written}"
    assert not changed or written, f"{action} changed something, and the audit log has nothing of it"


def jobs_are_as_told(told: Told, rows: Rows) -> None:
    """Each is where the table of states leads; none is anew, none is gone, and no end is left but by a resume."""
    found = {
        row.id: (row.state, row.attempt, row.num_lost, row.latest_checkpoint_id, row.result_checkpoint_id)
        for row in rows["jobs"]
    }
    assert found == {
        one.id: (one.state, one.attempt, one.num_lost, one.latest, one.result) for one in told.jobs.values()
    }


def leases_belong_to_held_jobs(rows: Rows) -> None:
    """One attempt at a time: a row has one lease, one worker and one attempt number, and only while it is held."""
    for row in rows["jobs"]:
        marks = {row.worker_id is not None, row.lease_expires_at is not None, row.attempt_started_at is not None}
        assert marks == {row.state in HELD}, f"{row.id} is {row.state}"
        assert (row.finished_at is not None) == (row.state in TERMINAL)
        assert row.state not in ("cancelling", "cancelled") or row.cancel_requested
        assert row.state != "failed" or row.error is not None


def no_event_is_lost(told: Told, rows: Rows) -> None:
    """Every acknowledged event is there under its number: no holes, nothing out of order, nothing that nobody said."""
    found: dict[str, list[tuple[int, str]]] = {one: [] for one in told.jobs}
    for row in rows["events"]:
        found[row.job_id].append((row.attempt, row.type))
        assert row.seq == len(found[row.job_id]), f"event {row.seq} of {row.job_id} comes out of its place"
    assert found == {one.id: one.events for one in told.jobs.values()}
    assert {row.id: row.last_seq for row in rows["jobs"]} == {job_id: len(one) for job_id, one in found.items()}
    for one in found.values():
        attempts = [attempt for attempt, _ in one]
        assert attempts == sorted(attempts), "an attempt wrote after its successor"


def no_metric_is_lost(told: Told, rows: Rows) -> None:
    found: dict[str, dict[int, float]] = {one: {} for one in told.jobs}
    for row in rows["metrics"]:
        found[row.job_id][row.step] = row.figures["loss"]
    assert found == {one.id: one.metrics for one in told.jobs.values()}


def no_checkpoint_is_lost(told: Told, rows: Rows) -> None:
    found = {row.id: (row.job_id, row.step, row.attempt, row.is_pinned, row.is_best) for row in rows["checkpoints"]}
    assert found == {
        one.id: (one.job_id, one.step, one.attempt, one.is_pinned, one.is_best) for one in told.checkpoints.values()
    }
    files: dict[str, set[str]] = {one: set() for one in told.checkpoints}
    for row in rows["files"]:
        files[row.checkpoint_id].add(row.object_key)
    assert files == {one.id: set(one.keys) for one in told.checkpoints.values()}


def no_output_is_lost(told: Told, rows: Rows) -> None:
    for table, name in (("samples", "samples"), ("pages", "pages")):
        found = {(row[0], row[1]): row[2] for row in rows[table]}
        assert found == {(one.id, step): key for one in told.jobs.values() for step, key in getattr(one, name).items()}
    shards = {(row.job_id, row.path): row.object_key for row in rows["shards"]}
    shards |= {(row.job_id, "scores"): row.scores_object_key for row in rows["proofs"]}
    assert shards == {(one.id, path): key for one in told.jobs.values() for path, key in one.shards.items()}
    actions = {(row.job_id, row.id): row.answered_at is not None for row in rows["actions"]}
    assert actions == {(one.id, name): was for one in told.jobs.values() for name, was in one.actions.items()}


def uploads_and_exports_are_as_told(told: Told, rows: Rows) -> None:
    datasets = {row.id: (row.state, row.attempt, row.object_key) for row in rows["datasets"]}
    assert datasets == {one.id: (one.state, one.attempt, one.key) for one in told.datasets.values()}
    assert {row.id for row in rows["prompt_sets"]} == told.prompt_sets.keys()
    assert {row.name: row.checkpoint_id for row in rows["aliases"]} == told.aliases
    found = {
        row.id: (row.checkpoint_id, row.state, row.attempt, {file["object_key"] for file in row.files})
        for row in rows["exports"]
    }
    assert found == {
        one.id: (one.checkpoint_id, one.state, one.attempt, set(one.keys)) for one in told.exports.values()
    }


def no_image_and_no_vote_is_lost(told: Told, rows: Rows) -> None:
    """Each vote is there once, as it was said last, and so is what was drawn; what people judge is not deleted under them."""
    images: dict[str, dict[tuple[str, int], str]] = {one: {} for one in told.jobs}
    for row in rows["images"]:
        images[row.job_id][row.contender, row.number] = row.object_key
    assert images == {one.id: one.images for one in told.jobs.values()}
    assert {row.id: row.candidates_id for row in rows["labelings"]} == {
        one.id: one.candidates_id for one in told.labelings.values()
    }
    assert {one.candidates_id for one in told.labelings.values()} <= told.jobs.keys()
    votes: dict[str, dict[tuple[str, int], str]] = {one: {} for one in told.labelings}
    for row in rows["votes"]:
        votes[row.labeling_id][row.annotator, row.number] = row.choice
    assert votes == {one.id: one.votes for one in told.labelings.values()}


def webhooks_are_told_once(told: Told, rows: Rows, time: datetime) -> None:
    """What happened was written down once for each webhook that was on, and is sent until it was taken or given up."""
    hooks = {row.id: (row.enabled, row.num_failures) for row in rows["webhooks"]}
    assert hooks == {one.id: (one.enabled, one.num_failures) for one in told.webhooks.values()}
    found = Counter((row.webhook_id, row.type, subject_of(row.body)) for row in rows["deliveries"])
    assert found == told.announced
    for row in rows["deliveries"]:
        one = told.deliveries.get(row.id)
        state = ("pending", 0, 0) if one is None else (one.state, one.attempt, one.num_failures)
        assert (row.state, row.attempt, row.num_failures) == state, f"{row.id} of {row.webhook_id}"
        assert (row.due_at is not None) == (row.state == "pending"), f"{row.id} is {row.state}, and due at {row.due_at}"
        assert row.due_at is None or row.due_at <= time + LONGEST_WAIT, f"{row.id} waits for too long"


def what_is_named_is_there(told: Told, rows: Rows, keys: set[str]) -> None:
    """No row names an object that the store does not have, and no job that has not ended misses what it stands on."""
    assert not (missing := rows.named_keys() - keys), f"rows name objects that are gone: {sorted(missing)}"
    assert set(told.aliases.values()) <= told.checkpoints.keys()
    there = {*told.checkpoints, *told.datasets, *told.prompt_sets}
    for job in told.unfinished():
        if not job.was_resumed:  # its owner may have deleted that while it had ended
            needs = job.names | ({job.parent} if job.resumes else set())
            assert needs <= there, f"{job.id} is {job.state}, and what it needs is gone"


def sweeps_keep_to_their_number(told: Told, rows: Rows) -> None:
    """Trials that a user resumed come on top: whoever resumes one says so."""
    for sweep in told.sweeps.values():
        there = [told.jobs[one] for one in sweep.jobs.values() if one in told.jobs]
        live = [one for one in there if one.state not in AT_REST]
        assert len([one for one in live if not one.was_resumed]) <= sweep.at_once
    queued = Counter((row.sweep_id, row.job_id) for row in rows["trials"] if row.job_id is not None)
    assert not queued or max(queued.values()) == 1, "two trials have one job"


def quotas_are_kept(told: Told, rows: Rows, time: datetime, limits: Limits) -> None:
    assert limits.jobs is None or len(told.unfinished()) <= limits.jobs
    assert {row.hour: row.used for row in rows["submits"]} == dict(told.submits)
    assert limits.submits is None or max(told.submits.values(), default=0) <= limits.submits


def usage_is_what_the_attempts_took(told: Told, rows: Rows) -> None:
    """A row for each attempt that ended, from its claim to its end; no second of it is counted twice, none is negative."""
    found: dict[str, set[int]] = {one: set() for one in told.jobs}
    for row in rows["usage"]:
        assert all(seconds >= 0 for seconds in row.seconds.values()), row.seconds
        in_work = sum(seconds for phase, seconds in row.seconds.items() if phase != "queued")
        took = row.ended_at - row.claimed_at
        assert in_work <= took.total_seconds() + ROUNDING, f"{row.seconds} of {took}"
        if row.job_id is not None:
            found[row.job_id].add(row.attempt)
            claimed, ended = told.jobs[row.job_id].attempts[row.attempt]
            assert abs(row.claimed_at - claimed) + abs(row.ended_at - ended) < timedelta(seconds=ROUNDING)
    assert found == {one.id: set(one.attempts) for one in told.jobs.values()}
    months = {row.month: row.used for row in rows["process_time"]}
    for month in {*months, *told.seconds}:
        assert abs(months.get(month, 0.0) - told.seconds.get(month, 0.0)) < ROUNDING * 20, f"{month:%B}"
