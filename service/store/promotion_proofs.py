"""What earns a checkpoint a name: the report of its own job, or that of an evaluation in which it competes.

An evaluation counts where its anchor is what the checkpoint has to beat: what the name points at now, or the model that the
checkpoint's job began from. Any other anchor would be easy to beat, and would say nothing.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.reports import EvaluationReport, ProofReport, RewardComparison
from alignment_core.spec import CheckpointSource, ContenderSpec, JobSpec, ProofSpec, sha256_of_json
from service.store.models import Alias, Checkpoint, Job, Promotion, Report
from service.store.models import Proof as ProofRow
from service.store.records.promotions import Proof


class Unproven(Exception):  # noqa: N818 - a state of affairs, read as one
    """No report shows that the checkpoint is better; the message says what there is instead."""


class EvaluationMissing(Exception):  # noqa: N818 - a state of affairs, read as one
    """The project has no such evaluation."""


def of_own_report(session: Session, checkpoint: Checkpoint) -> Proof | None:
    """What the job's report on this very checkpoint says of its primary reward; None where there is none."""
    row = session.get(Report, (checkpoint.job_id, checkpoint.step))
    return None if row is None else _proof(checkpoint, EvaluationReport.model_validate(row.report), row.report)


def of_evaluation(session: Session, checkpoint: Checkpoint, evaluation_id: str, current_id: str | None) -> Proof:
    """What an evaluation says of the checkpoint; raises `Unproven` where that is nothing, and `EvaluationMissing`.

    `current_id` is the checkpoint that the name points at now.
    """
    # held, so that it is not deleted before the promotion that stands on it is there for all to see
    wanted = sa.select(Job).where(Job.id == evaluation_id, Job.project_id == checkpoint.project_id)
    evaluation = session.scalars(wanted.with_for_update(read=True)).one_or_none()
    if evaluation is None:
        raise EvaluationMissing(evaluation_id)
    row = session.get(ProofRow, evaluation_id)
    if row is None:
        raise Unproven(f"evaluation {evaluation_id} has no report: it is {evaluation.state}")
    spec, report = ProofSpec.model_validate(evaluation.spec), ProofReport.model_validate(row.report)
    name = _name_in(session, spec, checkpoint)
    anchor = next(one for one in spec.contenders if one.name == spec.anchor_name)
    if not _must_be_beaten(session, anchor, checkpoint, current_id):
        to_beat = "the model that its job began from" + (f", or {current_id}" if current_id else "")
        raise Unproven(f"the anchor of {evaluation_id}, {anchor.name}, is not what it has to beat: {to_beat}")
    comparison = next(one for one in report.comparisons if one.policy.label == name)
    proof = _proof(checkpoint, comparison, row.report)
    if proof is None:
        raise Unproven(f"the report of {evaluation_id} has no reward")
    return proof.model_copy(update={"evaluation_id": evaluation_id, "contender": name, "anchor": anchor.name})


def lacking(checkpoint: Checkpoint, proof: Proof | None) -> str | None:
    """Why this is no proof; None where it is."""
    if proof is None:
        return f"there is no report with a reward on the checkpoint of step {checkpoint.step}"
    if proof.verdict == "unknown":
        return f"the report on step {proof.step} decides nothing: it has no interval"
    gain = f"its gain in {proof.reward} is {proof.gain:+.4g} ({proof.low:+.4g} to {proof.high:+.4g})"
    if not proof.low > 0:
        return f"{gain}, which does not show that it is better"
    if proof.holm_p_value is not None and not proof.holm_p_value < 1 - proof.confidence:
        return f"{gain}, which among so many contenders does not show that it is better: p is {proof.holm_p_value:.2g}"
    return None


def needing(session: Session, project_id: str, evaluation_id: str) -> list[str]:
    """The names that a promotion gave by this evaluation and that still point where it put them."""
    query = (
        sa.select(Alias.name, Promotion.proof)
        .join(Promotion, Promotion.id == Alias.promotion_id)
        .where(Alias.project_id == project_id)
        .order_by(Alias.name)
    )
    return [name for name, proof in session.execute(query) if proof and proof.get("evaluation_id") == evaluation_id]


def _proof(checkpoint: Checkpoint, report: EvaluationReport, stored: object) -> Proof | None:
    primary: RewardComparison | None = next((one for one in report.rewards if one.name == report.primary_reward), None)
    if primary is None:
        return None
    return Proof(
        job_id=checkpoint.job_id,
        step=checkpoint.step,
        report_sha256=sha256_of_json(stored),
        reward=primary.name,
        gain=primary.gain,
        low=primary.gain_interval.low,
        high=primary.gain_interval.high,
        confidence=primary.gain_interval.confidence,
        holm_p_value=primary.holm_p_value,
        verdict=report.verdict,
        num_prompts=report.num_prompts,
    )


def _name_in(session: Session, spec: ProofSpec, checkpoint: Checkpoint) -> str:
    """What the evaluation calls the checkpoint; raises `Unproven` where no contender but the anchor is it."""
    for one in spec.contenders:
        if one.name != spec.anchor_name and _is_the_same(one, _as_contender(session, checkpoint)):
            return one.name
    names = ", ".join(one.name for one in spec.contenders if one.name != spec.anchor_name)
    raise Unproven(f"none of the contenders that are compared with {spec.anchor_name} is it, as it is: {names}")


def _must_be_beaten(session: Session, anchor: ContenderSpec, checkpoint: Checkpoint, current_id: str | None) -> bool:
    current = None if current_id is None else session.get(Checkpoint, current_id)
    if current is not None and _is_the_same(anchor, _as_contender(session, current)):
        return True
    return _is_the_same(anchor, _begun_from(_spec_of(session, checkpoint)))


def _as_contender(session: Session, checkpoint: Checkpoint) -> ContenderSpec:
    """What an evaluation that names the checkpoint keeps of it: a LoRA stands for its job's model with it."""
    source = CheckpointSource(id=checkpoint.id)
    if checkpoint.kind == "full":
        return ContenderSpec(name="it", model=source)
    return ContenderSpec(name="it", model=_spec_of(session, checkpoint).model, lora=source)


def _begun_from(spec: JobSpec) -> ContenderSpec:
    """What the job's own report compares with."""
    start = spec.start
    if start is None or start.initial == "base":
        return ContenderSpec(name="it", model=spec.model)
    return ContenderSpec(name="it", model=spec.model, lora=start.lora, alpha=start.alpha)


def _is_the_same(one: ContenderSpec, other: ContenderSpec) -> bool:
    return one.model_copy(update={"name": other.name}) == other


def _spec_of(session: Session, checkpoint: Checkpoint) -> JobSpec:
    return JobSpec.model_validate(session.get_one(Job, checkpoint.job_id).spec)
