"""A service in one process: its store, its objects, its workers, the record kept outside, and how a step is taken."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import SecretStr

from benchmarks.simulation import claims, rows, told
from benchmarks.simulation.fragile import START, Clock, Death, Died, FragileObjects, FragileStore, Fuse
from service.errors import ApiError
from service.settings import Settings
from service.store import audit
from service.store.aliases import Unproven
from service.store.ancestry import CheckpointGone
from service.store.audit import Deed
from service.store.catalog import Catalog
from service.store.database import open_store
from service.store.deletion import InUse
from service.store.deliveries import WebhookOff
from service.store.fence import Fenced
from service.store.labelings import LabelingGone, NoPairs, NotDrawn
from service.store.limits import Limits, QuotaExceeded
from service.store.models import Base
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.queueing import DatasetGone
from service.store.records.candidates import LabelingRecord
from service.store.records.jobs import Claim
from service.store.records.webhooks import DeliveryClaim
from service.store.states import InvalidTransition
from service.store.webhooks import TooMany
from worker.parts import WorkerParts

T = TypeVar("T")

LIMITS = Limits(jobs=6, submits=14)
LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3
REFUSALS = (
    *(Fenced, InvalidTransition, InUse, QuotaExceeded, DatasetGone, CheckpointGone, Unproven),
    *(NotDrawn, NoPairs, LabelingGone, TooMany, WebhookOff, ApiError),
)
KEPT = ("projects", "alembic_version")


@dataclass
class Attempt:
    """A worker's hold on a job, as the worker knows it: it goes on believing in it after it was lost."""

    claim: Claim
    workdir: Path
    step: int
    has_started: bool = False


@dataclass
class Hold:
    """The same of an export, with where its files go, or of a data set."""

    id: str
    attempt: int
    prefix: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a call ended. One that died after its commit has happened, though nobody was told."""

    value: Any = None
    refusal: Exception | None = None
    died: bool = False
    commits: int = 0

    @property
    def happened(self) -> bool:
        return self.refusal is None and self.commits > 0


@dataclass
class World:
    """`begin` empties it, so that a history costs no new database."""

    url: str
    root: Path
    clock: Clock = field(default_factory=Clock)
    fuse: Fuse = field(default_factory=Fuse)
    rules: Counter[str] = field(default_factory=Counter)
    verbs: Counter[Any] = field(default_factory=Counter)
    num_histories: int = 0
    num_steps: int = 0

    def __post_init__(self) -> None:
        opened = open_store(self.url)
        self.store = FragileStore(opened.engine, limits=LIMITS, clock=self.clock)
        self.store.fuse = self.fuse
        self.settings = Settings(
            data_dir=self.root / "data", lease_seconds=LEASE_SECONDS, webhooks_key=SecretStr("k" * 32)
        )
        self.begin()

    def begin(self) -> None:
        _empty(self.store.engine)
        shutil.rmtree(self.root, ignore_errors=True)
        self.clock.time = START
        self.objects = FragileObjects(self.root / "objects", self.clock, self.fuse)
        self.told = told.Told()
        self.attempts: list[Attempt] = []
        self.makers: list[Hold] = []
        self.checkers: list[Hold] = []
        self.senders: list[DeliveryClaim] = []
        self.ballots: list[LabelingRecord] = []  # labelings as some request found them a moment ago
        self.unanswered: list[Any] = []  # requests that were broken off
        self.rung: list[str] = []
        self.rows = rows.read(self.store)
        self.num_files, self._is_read = 0, False
        self.num_histories += 1
        self.parts = WorkerParts(
            settings=self.settings,
            store=self.store,
            objects=self.objects,
            catalog=Catalog(),
            worker_id="a worker",
            ring=self.rung.append,
            ring_dataset=self.rung.append,
            trainer=(),
        )
        self.api_parts = SimpleNamespace(
            settings=self.settings,
            store=self.store,
            objects=self.objects,
            bell=SimpleNamespace(ring_dataset=self.rung.append),
        )

    def act(self, call: Callable[[], Any], death: Death | None = None) -> Outcome:
        """Make a call, in the middle of which the process may die."""
        self.fuse.light(death)
        self._is_read = False
        try:
            return Outcome(value=call(), commits=self.fuse.commits)
        except Died:
            return Outcome(died=True, commits=self.fuse.commits)
        except REFUSALS as error:
            return Outcome(refusal=error, commits=self.fuse.commits)
        finally:
            self.fuse.light(None)

    def ask(self, action: str, call: Callable[[], Any], death: Death | None = None) -> Outcome:
        """The same in the name of a user, which the audit log tells."""
        if not self._is_read:
            self.rows = rows.read(self.store)
            self.told.deeds = [row.action for row in self.rows["audit"]]
        token = audit.current.set(Deed(action, project_id=PROJECT))
        try:
            outcome = self.act(call, death)
        finally:
            audit.current.reset(token)
        found = rows.read(self.store)
        changed, deeds = found.differ_from(self.rows), [row.action for row in found["audit"]]
        claims.check_deed(action, deeds[len(self.told.deeds) :], changed=changed)
        self.told.deeds, self.rows, self._is_read = deeds, found, True
        return outcome

    def check(self) -> None:
        """Compare what the service holds with the record kept outside."""
        self.num_steps += 1
        if not self._is_read:
            self.rows, self._is_read = rows.read(self.store), True
        claims.check(self.told, self.rows, self.objects.all_keys(), self.clock.time, LIMITS)
        self.told.deeds = [row.action for row in self.rows["audit"]]

    def end(self) -> None:
        self.verbs += self.told.taken

    def close(self) -> None:
        self.store.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def new_file(self, folder: Path, name: str, content: bytes) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return name


def judge(outcome: Outcome, *, allowed: bool) -> bool:
    """Whether it happened; that it was refused, or was not, has to be what the record says."""
    if outcome.refusal is not None:
        assert not allowed, f"refused without a reason that the record knows: {outcome.refusal!r}"
        return False
    if not outcome.died:
        assert allowed, "it was done, and the record says that it must not be"
        assert outcome.commits, "it was said to be done, and nothing was committed"
    elif outcome.commits:
        assert allowed, "it was committed, and the record says that it must not be"
    return outcome.happened


def pick(some: Iterable[T], index: int) -> T:
    """One of them, the latest for zero: most of what happens happens to what is new."""
    found: Sequence[T] = list(some)
    return found[-1 - index % len(found)]


def _empty(engine: sa.Engine) -> None:
    tables = [table for table in reversed(Base.metadata.sorted_tables) if table.name not in KEPT]
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"TRUNCATE {', '.join(table.name for table in tables)}"))
        else:
            for table in tables:
                connection.execute(sa.delete(table))
