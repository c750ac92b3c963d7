"""What the database really holds of a project, read in a few plain queries."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.store.database import Store
from service.store.models import (
    Alias,
    AttemptUsage,
    AuditEntry,
    CandidateImage,
    Checkpoint,
    CheckpointFile,
    Dataset,
    Export,
    Job,
    JobAction,
    JobEvent,
    JobRetention,
    Labeling,
    LabelingVote,
    Metric,
    ProcessTime,
    ProjectRetention,
    Promotion,
    PromptSet,
    Proof,
    ProofShard,
    Report,
    Sample,
    SubmitCount,
    Sweep,
    SweepTrial,
    Webhook,
    WebhookDelivery,
)

JOB = (
    Job.id,
    Job.state,
    Job.attempt,
    Job.num_lost,
    Job.worker_id,
    Job.lease_expires_at,
    Job.attempt_started_at,
    Job.finished_at,
    Job.last_seq,
    Job.latest_checkpoint_id,
    Job.result_checkpoint_id,
    Job.cancel_requested,
    Job.pause_keeps,
    Job.error,
    Job.step,
)

QUERIES: dict[str, Any] = {
    "jobs": sa.select(*JOB).order_by(Job.id),
    "events": sa.select(JobEvent.job_id, JobEvent.seq, JobEvent.attempt, JobEvent.type).order_by(
        JobEvent.job_id, JobEvent.seq
    ),
    "metrics": sa.select(Metric.job_id, Metric.step, Metric.figures),
    "checkpoints": sa.select(
        Checkpoint.id, Checkpoint.job_id, Checkpoint.step, Checkpoint.attempt, Checkpoint.is_pinned, Checkpoint.is_best
    ),
    "files": sa.select(CheckpointFile.checkpoint_id, CheckpointFile.object_key),
    "exports": sa.select(Export.id, Export.checkpoint_id, Export.state, Export.attempt, Export.files),
    "samples": sa.select(Sample.job_id, Sample.step, Sample.object_key),
    "pages": sa.select(Report.job_id, Report.step, Report.page_object_key),
    "shards": sa.select(ProofShard.job_id, ProofShard.path, ProofShard.object_key),
    "proofs": sa.select(Proof.job_id, Proof.scores_object_key),
    "actions": sa.select(JobAction.id, JobAction.job_id, JobAction.answered_at),
    "datasets": sa.select(Dataset.id, Dataset.state, Dataset.attempt, Dataset.object_key),
    "prompt_sets": sa.select(PromptSet.id, PromptSet.object_key),
    "aliases": sa.select(Alias.name, Alias.checkpoint_id),
    "images": sa.select(
        CandidateImage.job_id, CandidateImage.contender, CandidateImage.number, CandidateImage.object_key
    ),
    "labelings": sa.select(Labeling.id, Labeling.candidates_id),
    "votes": sa.select(LabelingVote.labeling_id, LabelingVote.annotator, LabelingVote.number, LabelingVote.choice),
    "webhooks": sa.select(Webhook.id, Webhook.enabled, Webhook.num_failures).order_by(Webhook.id),
    "deliveries": sa.select(
        WebhookDelivery.id,
        WebhookDelivery.webhook_id,
        WebhookDelivery.type,
        WebhookDelivery.body,
        WebhookDelivery.state,
        WebhookDelivery.attempt,
        WebhookDelivery.num_failures,
        WebhookDelivery.due_at,
        WebhookDelivery.created_at,
    ).order_by(WebhookDelivery.id),
    "promotions": sa.select(Promotion.id),
    "sweeps": sa.select(Sweep.id, Sweep.is_open, Sweep.is_cancelled),
    "trials": sa.select(
        SweepTrial.sweep_id, SweepTrial.number, SweepTrial.job_id, SweepTrial.is_created, SweepTrial.error
    ),
    "usage": sa.select(
        AttemptUsage.job_id, AttemptUsage.attempt, AttemptUsage.claimed_at, AttemptUsage.ended_at, AttemptUsage.seconds
    ),
    "process_time": sa.select(ProcessTime.month, ProcessTime.used),
    "submits": sa.select(SubmitCount.hour, SubmitCount.used),
    "policies": sa.union_all(
        sa.select(
            ProjectRetention.project_id,
            ProjectRetention.keep_last,
            ProjectRetention.ttl_days,
            ProjectRetention.unfinished_days,
        ),
        sa.select(JobRetention.job_id, JobRetention.keep_last, JobRetention.ttl_days, JobRetention.unfinished_days),
    ),
    "audit": sa.select(AuditEntry.action, AuditEntry.object_ids).order_by(AuditEntry.id),
}
BESIDE = ("audit", "submits")


@dataclass(frozen=True)
class Rows:
    """By the names above, each a list of rows."""

    tables: dict[str, list[Any]]

    def __getitem__(self, name: str) -> list[Any]:
        return self.tables[name]

    def differ_from(self, others: "Rows") -> bool:
        """Whether anything of the project differs, what the service remembers for itself aside."""
        return any(others[name] != found for name, found in self.tables.items() if name not in BESIDE)

    def named_keys(self) -> set[str]:
        """Of every object that some row names."""
        found = {row.object_key for row in (*self["files"], *self["samples"], *self["shards"], *self["prompt_sets"])}
        found |= {row.page_object_key for row in self["pages"]} | {row.scores_object_key for row in self["proofs"]}
        found |= {row.object_key for row in (*self["datasets"], *self["images"])}
        found |= {file["object_key"] for row in self["exports"] for file in row.files}
        return found - {None}


def subject_of(body: str) -> str:
    """The id, or the name, of what a webhook is told of."""
    data = json.loads(body)["data"]
    return next(data[name] for name in ("verification_id", "alias", "webhook_id", "id") if name in data)


def read(store: Store) -> Rows:
    with store.engine.connect() as connection:
        return Rows({name: list(connection.execute(query)) for name, query in QUERIES.items()})
