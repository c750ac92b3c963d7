"""What users upload, and what workers do with it: data sets and weights are checked under a lease, prompt sets are there at once."""

from datetime import timedelta
from typing import Literal, assert_never

from alignment_core.prompt_files import PromptsReport
from alignment_core.reports import WeightsReport
from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import LEASE_SECONDS, Hold, World, judge, pick
from service.store import datasets, keys, prompt_sets
from service.store.ids import new_id
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError, StoredFile

CONTENT = b"PAR1"
SHA256 = "0" * 64
UPLOAD_TIMEOUT_SECONDS = 3600.0
READY = WeightsReport.model_construct(format="peft", num_layers=1, ranks=[4], alphas=[4.0], changes_text_encoder=False)
UNREADABLE = JobError(code="unreadable", message="no such form", category="user")

Step = Literal["upload", "arrive", "prompts", "claim"]
Check = Literal["renew", "ready", "fail", "give_back"]


def go_on(world: World, what: Step, index: int, death: Death | None) -> None:
    match what:
        case "arrive" if any(not one.is_made for one in world.told.datasets.values()):
            arrive(world, index, death)
        case "claim" if world.told.datasets:
            claim(world, index, death)
        case "prompts":
            add_prompts(world, death)
        case "upload" | "arrive" | "claim":
            create(world, death)
        case _:
            assert_never(what)


def create(world: World, death: Death | None) -> None:
    """The row comes first, then the object, then the row says that it is there; a client may vanish between any two."""
    dataset_id, time = new_id("ds"), world.clock.time
    call = lambda: datasets.create(  # noqa: E731
        world.store, project_id=PROJECT, filename="pairs.parquet", dataset_id=dataset_id, size_bytes=len(CONTENT)
    )
    if judge(world.ask("createDataset", call, death), allowed=True):
        world.told.datasets[dataset_id] = told.Dataset(dataset_id, uploading_since=time)


def arrive(world: World, index: int, death: Death | None) -> None:
    dataset = pick([one for one in world.told.datasets.values() if not one.is_made], index)
    key = keys.dataset_key(PROJECT, dataset.id, ".parquet")

    def put() -> None:
        world.objects.put_bytes(key, CONTENT)
        datasets.uploaded(world.store, dataset.id, size_bytes=len(CONTENT), sha256=SHA256, object_key=key)

    outcome = world.ask("uploadDataset", put, death)
    if judge(outcome, allowed=True) and dataset.state == "uploading":
        dataset.state, dataset.key = "checking", key


def claim(world: World, index: int, death: Death | None) -> None:
    dataset, time = pick(world.told.datasets.values(), index), world.clock.time
    is_free = dataset.lease_ends_at is None or dataset.lease_ends_at < time
    allowed = dataset.state == "checking" and is_free
    outcome = world.act(lambda: datasets.claim(world.store, dataset.id, "a checker", LEASE_SECONDS), death)
    assert outcome.died or (outcome.value is not None) == allowed
    if outcome.happened and allowed:
        dataset.attempt += 1
        dataset.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)
        world.checkers.append(Hold(dataset.id, dataset.attempt))


def check(world: World, index: int, what: Check, death: Death | None) -> None:
    hold = pick(world.checkers, index)
    dataset = world.told.datasets.get(hold.id)
    holds = dataset is not None and dataset.state == "checking" and dataset.attempt == hold.attempt
    if what == "renew":
        has_lease = holds and dataset is not None and dataset.lease_ends_at is not None
        time = world.clock.time
        assert datasets.renew(world.store, hold.id, hold.attempt, LEASE_SECONDS) == has_lease
        if has_lease and dataset is not None:
            dataset.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)
        return
    outcome = world.act(lambda: _checked(world, hold, what), death)
    if judge(outcome, allowed=holds) and dataset is not None:
        dataset.lease_ends_at = None
        if what in ("ready", "fail"):
            world.told.end_check(dataset, "ready" if what == "ready" else "failed")


def _checked(world: World, hold: Hold, what: Check) -> object:
    match what:
        case "ready":
            return datasets.set_report(world.store, hold.id, hold.attempt, READY)
        case "fail":
            return datasets.fail(world.store, hold.id, hold.attempt, UNREADABLE)
        case _:
            return datasets.give_back(world.store, hold.id, hold.attempt)


def sweep(world: World, max_attempts: int, death: Death | None) -> None:
    time = world.clock.time
    outcome = world.act(
        lambda: datasets.sweep(world.store, max_attempts=max_attempts, upload_timeout_seconds=UPLOAD_TIMEOUT_SECONDS),
        death,
    )
    for one in world.told.datasets.values() if outcome.happened else []:
        if one.state == "uploading" and one.uploading_since is not None:
            is_late = one.uploading_since < time - timedelta(seconds=UPLOAD_TIMEOUT_SECONDS)
            if is_late:
                world.told.end_check(one, "failed")
        elif one.lease_ends_at is not None and one.lease_ends_at < time:
            one.num_lost, one.lease_ends_at = one.num_lost + 1, None
            if one.num_lost >= max_attempts:
                world.told.end_check(one, "failed")


def add_prompts(world: World, death: Death | None) -> None:
    """The object comes first, then the row: one without the other is an orphan."""
    prompt_set_id = new_id("ps")
    key = keys.prompt_set_key(PROJECT, prompt_set_id)
    report = PromptsReport(
        format="text",
        column=None,
        num_rows=1,
        num_prompts=1,
        num_duplicates=0,
        duplicate_rows=[],
        num_empty=0,
        empty_rows=[],
        sha256=SHA256,
    )

    def put() -> None:
        world.objects.put_bytes(key, b'{"prompt": "a"}\n')
        prompt_sets.create(
            world.store,
            prompt_set_id=prompt_set_id,
            project_id=PROJECT,
            filename="prompts.txt",
            name=None,
            report=report,
            file=StoredFile(path="prompts.jsonl", size_bytes=16, sha256=SHA256, object_key=key),
        )

    if judge(world.ask("createPromptSet", put, death), allowed=True):
        world.told.prompt_sets[prompt_set_id] = None
