"""What was encoded of a data set is counted, and goes when nobody has used it for long, and never under a job that may read it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.store import datasets, keys, leases
from service.store.objects import ObjectInfo, ObjectStore, open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from tests.servers.swift import S3Server
from tests.service.store.test_objects import s3_settings
from tests.worker.conftest import World
from tests.worker.test_dataset import get, upload
from tests.worker.test_shards import Machine, machine  # noqa: F401 - a fixture
from worker.encoded import last_uses, remove_unused_encodings, unused

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OLD, OTHER = "a" * 32, "b" * 32


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.mark.parametrize(
    ("used", "has_live_jobs", "expected"),
    [
        ({OLD: days_ago(91), OTHER: days_ago(89)}, False, [OLD]),
        ({OTHER: days_ago(100), OLD: days_ago(91)}, False, [OLD, OTHER]),
        ({OLD: days_ago(1000)}, True, []),
        ({OLD: days_ago(90)}, False, []),
        ({}, False, []),
    ],
)
def test_only_what_nobody_used_for_long_goes(
    used: dict[str, datetime], has_live_jobs: bool, expected: list[str]
) -> None:
    assert unused(used, NOW, 90, has_live_jobs=has_live_jobs) == expected


def test_a_use_is_the_newest_of_its_objects_and_of_its_mark() -> None:
    encoded = [ObjectInfo(f"p/latents/{OLD}/x", 1, days_ago(9)), ObjectInfo(f"p/latents/{OLD}/y", 1, days_ago(8))]
    encoded.append(ObjectInfo(f"p/latents/{OTHER}/z", 1, days_ago(7)))
    marks = [ObjectInfo(f"p/used/{OTHER}", 0, days_ago(2)), ObjectInfo(f"p/used/{'c' * 32}", 0, days_ago(1))]
    assert last_uses(encoded, "p/latents/", marks) == {OLD: days_ago(8), OTHER: days_ago(2)}


@pytest.fixture
def objects(world: World, s3_server: S3Server) -> ObjectStore:
    return open_objects(s3_settings(s3_server, world.root))


def encoded_in(objects: ObjectStore, dataset_id: str) -> int:
    return sum(info.size_bytes for info in objects.list(keys.latents_prefix(DEFAULT_PROJECT_ID, dataset_id)))


def test_a_job_keeps_what_was_encoded_and_its_end_does_not(
    world: World,
    machine: Callable[..., Machine],  # noqa: F811
    objects: ObjectStore,
) -> None:
    dataset_id = upload(world, b"PAR1")
    run = machine("first", dataset_id)
    run.encode_missing()
    size = encoded_in(objects, dataset_id)
    assert get(world, dataset_id).encoded_bytes == size > 0
    tomorrow = {"encoded_days": -1.0}  # as if a day had passed: a store's times may be a second ahead
    hasty = replace(run.parts, settings=run.parts.settings.model_copy(update=tomorrow))
    remove_unused_encodings(hasty)
    assert encoded_in(objects, dataset_id) == size  # the job has not ended
    leases.finish(world.store, run.claim.job.id, run.claim.attempt, "succeeded", None)
    remove_unused_encodings(run.parts)
    assert encoded_in(objects, dataset_id) == size  # it was used today
    never = replace(run.parts, settings=run.parts.settings.model_copy(update={"encoded_days": None}))
    remove_unused_encodings(never)
    assert encoded_in(objects, dataset_id) == size
    remove_unused_encodings(hasty)
    assert encoded_in(objects, dataset_id) == 0
    assert get(world, dataset_id).encoded_bytes == 0
    assert datasets.with_encodings(world.store) == []
    assert len(machine("second", dataset_id).encode_missing()) == 6
    assert Path(run.parts.settings.resolved_cache_dir).exists()
