"""What happened, as webhooks are told it. Each function is called in the transaction that changes what it tells of (`outbox.py`)."""

from datetime import datetime
from typing import Any, assert_never

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from alignment_core.events import WarningRaised
from alignment_core.reports import EvaluationReport
from alignment_core.spec import GuardsSpec
from service.store import outbox
from service.store.kinds import kind_of
from service.store.models import Dataset, Job, JobEvent, Promotion, Proof, Report, Sweep, SweepTrial, Webhook
from service.store.states import TERMINAL
from service.store.sweep_best import best_of
from service.store.traces import continued
from service.store.webhook_events import (
    AliasChanged,
    AliasChangedPayload,
    BestTrial,
    ContenderGain,
    EvaluationEnded,
    EvaluationEndedPayload,
    EvaluationVerified,
    EvaluationVerifiedPayload,
    Gain,
    GuardSpoke,
    GuardSpokePayload,
    JobEnded,
    JobEndedPayload,
    Payload,
    SweepEnded,
    SweepEndedPayload,
    UploadChecked,
    UploadCheckedPayload,
    WebhookDisabled,
    WebhookDisabledPayload,
)

GUARDS = frozenset(GuardsSpec.model_fields) - {"on_violation"}
CHAMPION = "champion"


def ended(session: Session, row: Job, time: datetime) -> None:
    """A row of the queue is in a state that is for good, or nearly."""
    with continued(row.traceparent):
        _ended(session, row, time)


def _ended(session: Session, row: Job, time: datetime) -> None:
    match kind_of(row.id):
        case "job":
            _job_ended(session, row, time)
            _its_sweep_may_have_ended(session, row, time)
        case "eval":
            _evaluation_ended(session, row, time)
        case "vfy":
            _verification_ended(session, row, time)
        case "cand":
            pass  # whoever asked for them looks at them
        case None:
            raise AssertionError(f"{row.id} is no row of the queue")
        case kind:
            assert_never(kind)


def _job_ended(session: Session, row: Job, time: datetime) -> None:
    stopped_by = _stopped_by(session, row) if row.state == "succeeded" else None
    event_type: Any = "job.stopped" if stopped_by is not None else f"job.{row.state}"

    def payload() -> Payload:
        trial = sa.select(SweepTrial.sweep_id).where(SweepTrial.job_id == row.id).limit(1)
        data = JobEnded(
            id=row.id,
            name=row.name,
            state=_state(row),
            check_only=row.check_only,
            step=row.step,
            total_steps=row.total_steps,
            stopped_by=stopped_by,
            error_code=_error_code(row),
            result_checkpoint_id=row.result_checkpoint_id,
            sweep_id=session.scalars(trial).one_or_none(),
            gain=_gain_of_job(session, row.id) if row.state == "succeeded" else None,
        )
        return JobEndedPayload(type=event_type, timestamp=time, data=data)

    outbox.put(session, row.project_id, event_type, time, payload)


def _stopped_by(session: Session, row: Job) -> str | None:
    chosen = sa.select(JobEvent.data).where(JobEvent.job_id == row.id, JobEvent.type == "result_selected")
    found = session.scalars(chosen.order_by(JobEvent.seq.desc()).limit(1)).one_or_none()
    return None if found is None else found.get("stopped_by")


def _gain_of_job(session: Session, job_id: str) -> Gain | None:
    latest = sa.select(Report.report).where(Report.job_id == job_id).order_by(Report.step.desc()).limit(1)
    return _gain(session.scalars(latest).one_or_none() or {})


def _gain(report: dict[str, Any]) -> Gain | None:
    """Of its primary reward. Read leniently: a report of another form must not keep a job from ending."""
    primary = next((one for one in report.get("rewards", ()) if one["name"] == report.get("primary_reward")), None)
    if primary is None:
        return None
    interval = primary["gain_interval"]
    return Gain(reward=primary["name"], gain=primary["gain"], low=interval["low"], high=interval["high"])


def _evaluation_ended(session: Session, row: Job, time: datetime) -> None:
    event_type: Any = f"evaluation.{row.state}"

    def payload() -> Payload:
        proof = session.get(Proof, row.id) if row.state == "succeeded" else None
        report = {} if proof is None else proof.report
        gains = [
            ContenderGain(contender=contender, **gain.model_dump())
            for contender, comparison in zip(_challengers(report), report.get("comparisons", ()), strict=False)
            if (gain := _gain(comparison)) is not None
        ]
        data = EvaluationEnded(
            id=row.id,
            name=row.name,
            state=_state(row),
            error_code=_error_code(row),
            best=report.get("best"),
            gains=gains,
        )
        return EvaluationEndedPayload(type=event_type, timestamp=time, data=data)

    outbox.put(session, row.project_id, event_type, time, payload)


def _challengers(report: dict[str, Any]) -> list[str]:
    """The contenders but the anchor, in the order of the report's comparisons."""
    return [one["name"] for one in report.get("contenders", ()) if one["name"] != report.get("anchor")]


def _verification_ended(session: Session, row: Job, time: datetime) -> None:
    def payload() -> Payload:
        proof = session.get(Proof, row.id) if row.state == "succeeded" else None
        report = {} if proof is None else proof.report
        data = EvaluationVerified(
            id=row.parent_job_id or "",
            verification_id=row.id,
            state=_state(row),
            error_code=_error_code(row),
            outcome=report.get("outcome"),
            num_images=report.get("num_images"),
            num_equal_images=report.get("num_equal_images"),
        )
        return EvaluationVerifiedPayload(timestamp=time, data=data)

    outbox.put(session, row.project_id, "evaluation.verified", time, payload)


def _state(row: Job) -> Any:
    return row.state


def _error_code(row: Job) -> str | None:
    return row.error["code"] if row.state == "failed" and row.error is not None else None


def _its_sweep_may_have_ended(session: Session, row: Job, time: datetime) -> None:
    if not outbox.receivers(session, row.project_id, "sweep.ended"):
        return
    mine = sa.select(SweepTrial.sweep_id).where(SweepTrial.job_id == row.id)
    # one after the other: of two jobs that end at once, the second sees that the first has
    sweep = session.scalars(sa.select(Sweep).where(Sweep.id.in_(mine)).with_for_update()).one_or_none()
    if sweep is not None:
        sweep_may_have_ended(session, sweep, time)


def sweep_may_have_ended(session: Session, sweep: Sweep, time: datetime) -> None:
    """Tell it, if nothing of a locked sweep is yet to be queued or to end."""
    if sweep.is_open:
        return
    session.flush()
    trials = (
        sa.select(SweepTrial.is_created, SweepTrial.error, Job.state)
        .outerjoin(Job, Job.id == SweepTrial.job_id)
        .where(SweepTrial.sweep_id == sweep.id)
    )
    found = session.execute(trials).all()
    being_queued = any(
        one.state is None and not one.is_created and one.error is None and not sweep.is_cancelled for one in found
    )
    if being_queued or any(one.state is not None and one.state not in TERMINAL for one in found):
        return
    states = [one.state for one in found]

    def payload() -> Payload:
        data = SweepEnded(
            id=sweep.id,
            name=sweep.name,
            state="cancelled" if sweep.is_cancelled else "ended",
            num_trials=sweep.num_trials,
            num_succeeded=states.count("succeeded"),
            num_failed=states.count("failed") + sum(one.error is not None for one in found),
            num_cancelled=states.count("cancelled"),
            best=_best_trial(session, sweep.id),
        )
        return SweepEndedPayload(timestamp=time, data=data)

    outbox.put(session, sweep.project_id, "sweep.ended", time, payload)


def _best_trial(session: Session, sweep_id: str) -> BestTrial | None:
    """None too where a report has another form than this version's, which must not keep a job from ending."""
    query = (
        sa.select(SweepTrial.number, SweepTrial.job_id, Job.result_checkpoint_id, Report.report)
        .join(Job, Job.id == SweepTrial.job_id)
        .join(Report, Report.job_id == Job.id)
        .where(SweepTrial.sweep_id == sweep_id)
        .order_by(SweepTrial.number, Report.step)  # of several reports of a job the last counts
    )
    found = {row.number: row for row in session.execute(query)}
    try:
        best = best_of({number: EvaluationReport.model_validate(row.report) for number, row in found.items()})
    except ValidationError:
        return None
    gain = None if best is None else _gain(found[best].report)
    if best is None or gain is None:
        return None
    row = found[best]
    return BestTrial(number=best, job_id=row.job_id, checkpoint_id=row.result_checkpoint_id, gain=gain)


def warned(session: Session, row: Job, event: WarningRaised) -> None:
    """Tell a warning, if it is a guard's."""
    if event.code not in GUARDS:
        return
    data = GuardSpoke(id=row.id, name=row.name, guard=event.code, step=event.step)
    with continued(row.traceparent):
        outbox.put(
            session,
            row.project_id,
            "job.guard_spoke",
            event.time,
            lambda: GuardSpokePayload(timestamp=event.time, data=data),
        )


def upload_checked(session: Session, row: Dataset, time: datetime) -> None:
    """Uploaded data, or weights, are ready or failed."""
    event_type: Any = f"{'dataset' if row.kind == 'data' else 'weights'}.{row.state}"
    state: Any = row.state

    def payload() -> Payload:
        report = row.report or {}
        data = UploadChecked(
            id=row.id,
            name=row.name,
            state=state,
            error_code=None if row.error is None else row.error["code"],
            num_rows=report.get("num_rows"),
            num_usable_rows=report.get("num_usable_rows"),
        )
        return UploadCheckedPayload(type=event_type, timestamp=time, data=data)

    with continued(row.traceparent):
        outbox.put(session, row.project_id, event_type, time, payload)


def alias_changed(session: Session, promotion: Promotion) -> None:
    """A name points at another checkpoint than before, or at none."""
    if promotion.checkpoint_id == promotion.previous_checkpoint_id:
        return
    event_type: Any = "champion.changed" if promotion.alias == CHAMPION else "alias.changed"
    proof = promotion.proof

    def payload() -> Payload:
        data = AliasChanged(
            alias=promotion.alias,
            promotion_id=promotion.id,
            checkpoint_id=promotion.checkpoint_id,
            previous_checkpoint_id=promotion.previous_checkpoint_id,
            job_id=promotion.job_id,
            step=promotion.step,
            forced=promotion.forced,
            gain=None if proof is None else Gain(**{name: proof[name] for name in Gain.model_fields}),
        )
        return AliasChangedPayload(type=event_type, timestamp=promotion.created_at, data=data)

    outbox.put(session, promotion.project_id, event_type, promotion.created_at, payload)


def webhook_disabled(session: Session, webhook: Webhook, because: Any, time: datetime) -> None:
    """Tell the other webhooks of the project that this one is not asked any more."""
    data = WebhookDisabled(id=webhook.id, because=because, failing_since=webhook.failing_since)
    outbox.put(
        session,
        webhook.project_id,
        "webhook.disabled",
        time,
        lambda: WebhookDisabledPayload(timestamp=time, data=data),
    )
