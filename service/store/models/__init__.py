"""The tables. Rows never leave `service.store`: its functions hand out the frozen records of `records/`."""

from service.store.models.aliases import Alias, Promotion
from service.store.models.base import (
    LONGEST_FILENAME,
    LONGEST_LABEL_KEY,
    LONGEST_LABEL_VALUE,
    LONGEST_MODEL,
    LONGEST_NAME,
    Base,
    UTCDateTime,
)
from service.store.models.bookkeeping import Card, HostClock, IdempotencyKey, MeasuredRate, Model, Removal, StateCount
from service.store.models.candidates import CandidateImage, CandidateRecipe
from service.store.models.jobs import Job, JobAction, JobEvent, JobLabel, JobLog, Metric, MetricBlock
from service.store.models.labelings import Labeling, LabelingQuestion, LabelingVote
from service.store.models.projects import ApiKey, AuditEntry, ProcessTime, Project, Quota, SubmitCount
from service.store.models.results import (
    Checkpoint,
    CheckpointFile,
    Export,
    Proof,
    ProofShard,
    Push,
    Report,
    Sample,
    TrackingFile,
)
from service.store.models.retention import JobPins, JobRetention, ProjectRetention
from service.store.models.sessions import BrowserSession, LinkSecret
from service.store.models.sweeps import Sweep, SweepTrial
from service.store.models.uploads import Dataset, PromptSet, Upload, UploadPiece
from service.store.models.usage import AttemptUsage
from service.store.models.webhooks import Webhook, WebhookDelivery

__all__ = [
    "LONGEST_FILENAME",
    "LONGEST_LABEL_KEY",
    "LONGEST_LABEL_VALUE",
    "LONGEST_MODEL",
    "LONGEST_NAME",
    "Alias",
    "ApiKey",
    "AttemptUsage",
    "AuditEntry",
    "Base",
    "BrowserSession",
    "CandidateImage",
    "CandidateRecipe",
    "Card",
    "Checkpoint",
    "CheckpointFile",
    "Dataset",
    "Export",
    "HostClock",
    "IdempotencyKey",
    "Job",
    "JobAction",
    "JobEvent",
    "JobLabel",
    "JobLog",
    "JobPins",
    "JobRetention",
    "Labeling",
    "LabelingQuestion",
    "LabelingVote",
    "LinkSecret",
    "MeasuredRate",
    "Metric",
    "MetricBlock",
    "Model",
    "ProcessTime",
    "Project",
    "ProjectRetention",
    "Promotion",
    "PromptSet",
    "Proof",
    "ProofShard",
    "Push",
    "Quota",
    "Removal",
    "Report",
    "Sample",
    "StateCount",
    "SubmitCount",
    "Sweep",
    "SweepTrial",
    "TrackingFile",
    "UTCDateTime",
    "Upload",
    "UploadPiece",
    "Webhook",
    "WebhookDelivery",
]
