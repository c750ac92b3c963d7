"""The record kept outside: what was done and acknowledged, in plain Python. No function of the store reads or writes it.

States follow the table of `service/store/states.py`, which is the design; every entry that is taken is counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from service.store.records.checkpoints import ExportState
from service.store.records.uploads import DatasetState
from service.store.records.webhooks import DeliveryState
from service.store.retention_rules import Policy
from service.store.states import HELD, TERMINAL, TRANSITIONS, JobState, Verb

Failure = Literal["retryable", "final"]


@dataclass
class Checkpoint:
    id: str
    job_id: str
    step: int
    attempt: int
    keys: frozenset[str]
    time: datetime
    is_pinned: bool = False
    is_best: bool = False


@dataclass
class Job:
    """A job, an evaluation, a verification or candidates; `names` are the ids in its spec."""

    id: str
    names: frozenset[str]
    processes: int = 1
    parent: str | None = None  # the checkpoint it was forked from, or the evaluation it verifies
    resumes: bool = False  # from that checkpoint, which its spec does not name
    state: JobState = "queued"
    attempt: int = 0
    num_lost: int = 0
    failure: Failure | None = None  # its run has said that it failed, or it has
    claimed_at: datetime | None = None
    lease_ends_at: datetime | None = None
    discards: bool = False
    events: list[tuple[int, str]] = field(default_factory=list)  # attempt and type; the place is the number
    metrics: dict[int, float] = field(default_factory=dict)
    latest: str | None = None
    result: str | None = None
    samples: dict[int, str] = field(default_factory=dict)  # keys by step
    pages: dict[int, str] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)  # keys by path, with the scores
    images: dict[tuple[str, int], str] = field(default_factory=dict)  # of candidates: keys by contender and number
    actions: dict[str, bool] = field(default_factory=dict)  # whether they were answered
    ended_at: datetime | None = None
    attempts: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)  # those that ended
    was_resumed: bool = False

    @property
    def is_held(self) -> bool:
        return self.state in HELD

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def may_go_on(self) -> bool:
        return not self.has_ended or (self.state == "failed" and self.failure == "retryable")


@dataclass
class Export:
    id: str
    checkpoint_id: str
    state: ExportState = "queued"
    attempt: int = 0
    num_lost: int = 0
    lease_ends_at: datetime | None = None
    keys: frozenset[str] = frozenset()


@dataclass
class Dataset:
    id: str
    state: DatasetState = "uploading"
    attempt: int = 0
    num_lost: int = 0
    lease_ends_at: datetime | None = None
    uploading_since: datetime | None = None
    key: str | None = None
    is_made: bool = False  # here, of what people said of pairs of images: so many votes
    said: Counter[frozenset[str]] = field(default_factory=Counter)


@dataclass
class Trials:
    """A sweep: the specs of its trials, and the jobs that there are of them."""

    id: str
    at_once: int
    names: list[frozenset[str]]
    jobs: dict[int, str] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    is_cancelled: bool = False

    def waiting(self) -> list[int]:
        there = {*self.jobs, *self.given_up}
        return [] if self.is_cancelled else [one for one in range(len(self.names)) if one not in there]


@dataclass
class Labeling:
    id: str
    candidates_id: str
    votes: dict[tuple[str, int], str] = field(default_factory=dict)  # by annotator and question


@dataclass
class Webhook:
    id: str
    url: str
    enabled: bool = True
    num_failures: int = 0
    failing_since: datetime | None = None


@dataclass
class Delivery:
    """`subject` is the id, or the name, of what it tells of."""

    id: str
    webhook_id: str
    type: str
    subject: str
    state: DeliveryState = "pending"
    attempt: int = 0
    num_failures: int = 0
    lease_ends_at: datetime | None = None

    def is_leased(self, time: datetime) -> bool:
        return self.lease_ends_at is not None and self.lease_ends_at >= time


@dataclass
class Told:
    jobs: dict[str, Job] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    exports: dict[str, Export] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)  # with weights
    prompt_sets: dict[str, None] = field(default_factory=dict)  # in order: of what is chosen from a set, ids decide
    sweeps: dict[str, Trials] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    labelings: dict[str, Labeling] = field(default_factory=dict)
    webhooks: dict[str, Webhook] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    announced: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by webhook, type and subject
    received: dict[tuple[str, str], str] = field(default_factory=dict)  # ids by address and body
    num_urls: int = 0
    policies: dict[str, Policy] = field(default_factory=dict)  # by project or job
    submits: Counter[datetime] = field(default_factory=Counter)  # by hour
    seconds: dict[datetime, float] = field(default_factory=dict)  # of processes, by month
    deeds: list[str] = field(default_factory=list)
    taken: Counter[tuple[Verb, JobState]] = field(default_factory=Counter)

    def go(self, job: Job, verb: Verb, time: datetime) -> None:
        """Take an entry of the table; what its attempt held ends where the job leaves a worker."""
        before = job.state
        job.state = TRANSITIONS[verb][before]
        self.taken[verb, before] += 1
        if job.state in TERMINAL and before not in TERMINAL:
            job.ended_at = time
            self._announce_end(job)
        if before in HELD and job.state not in HELD:
            assert job.claimed_at is not None
            job.attempts[job.attempt] = (job.claimed_at, time)
            job.claimed_at = job.lease_ends_at = None

    def _announce_end(self, job: Job) -> None:
        match job.id.partition("_")[0]:
            case "job":
                self.announce(f"job.{job.state}", job.id)
            case "eval":
                self.announce(f"evaluation.{job.state}", job.id)
            case "vfy":
                self.announce("evaluation.verified", job.id)
            case _:
                pass  # whoever asked for candidates looks at them

    def announce(self, event_type: str, subject: str) -> None:
        """Once to each webhook that is on."""
        self.announced.update((one.id, event_type, subject) for one in self.webhooks.values() if one.enabled)

    def point(self, alias: str, checkpoint_id: str | None) -> None:
        """Put a name on a checkpoint, or take it away."""
        if self.aliases.get(alias) != checkpoint_id:
            self.announce("champion.changed" if alias == "champion" else "alias.changed", alias)
        if checkpoint_id is None:
            del self.aliases[alias]
        else:
            self.aliases[alias] = checkpoint_id

    def end_check(self, dataset: Dataset, state: Literal["ready", "failed"]) -> None:
        dataset.state = state
        self.announce(f"dataset.{state}", dataset.id)

    def drop_webhook(self, webhook_id: str) -> None:
        """With its deliveries."""
        del self.webhooks[webhook_id]
        self.deliveries = {name: one for name, one in self.deliveries.items() if one.webhook_id != webhook_id}
        self.announced = Counter({key: num for key, num in self.announced.items() if key[0] != webhook_id})

    def of_job(self, job_id: str) -> list[Checkpoint]:
        found = (one for one in self.checkpoints.values() if one.job_id == job_id)
        return sorted(found, key=lambda one: one.step)

    def unfinished(self) -> list[Job]:
        return [one for one in self.jobs.values() if not one.has_ended]

    def users_of(self, resource_id: str) -> list[Job]:
        """Jobs that have not ended whose spec names it, or that go on from it."""
        return [
            one for one in self.unfinished() if resource_id in one.names or (one.resumes and one.parent == resource_id)
        ]

    def is_awaited(self, resource_id: str) -> bool:
        """Whether a trial that is yet to be queued names it."""
        return any(resource_id in sweep.names[number] for sweep in self.sweeps.values() for number in sweep.waiting())

    def names_of(self, checkpoint_id: str) -> list[str]:
        return [name for name, target in self.aliases.items() if target == checkpoint_id]

    def drop_job(self, job_id: str) -> None:
        """With all that hangs on it."""
        del self.jobs[job_id]
        for one in self.of_job(job_id):
            self.drop_checkpoint(one.id)

    def drop_checkpoint(self, checkpoint_id: str) -> None:
        gone = self.checkpoints.pop(checkpoint_id)
        for one in [one.id for one in self.exports.values() if one.checkpoint_id == checkpoint_id]:
            del self.exports[one]
        if (job := self.jobs.get(gone.job_id)) is not None:
            left = self.of_job(job.id)
            job.latest = left[-1].id if left else None
            job.result = None if job.result == checkpoint_id else job.result
