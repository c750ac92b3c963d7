"""What runs ask of the object store through their workers, on a real S3 server: shared between workers, for one data set alone."""

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
import torch

from alignment_core.datasets.asked_store import AskedStore
from alignment_core.datasets.cache import Mended, TensorCache
from alignment_core.datasets.shard_store import NotStored
from alignment_core.datasets.shelf import Shelves
from alignment_core.errors import AlignmentError
from alignment_core.spec import JobSpec
from service.store import deletion, leases
from service.store.objects import ObjectStore, open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from service.store.records.jobs import Claim
from service.store.removals import remove_due
from service.store.unavailable import ObjectsUnavailable
from tests.servers.process import wait_until
from tests.servers.swift import S3Server
from tests.service.store.test_objects import s3_settings
from tests.worker.conftest import World
from tests.worker.test_dataset import upload
from worker.parts import WorkerParts
from worker.shards import Exchange, answering, remove_deleted_shards, shared_shards

SPACE: dict[str, str | int] = {"kind": "posterior"}
NUM = 6
SHARD = f"{'a' * 64}.safetensors"
QUESTIONS = (  # of a namespace, a name and a place; the last is a link that leads elsewhere
    ("../../other", SHARD, f"{'a' * 32}/unsent/{SHARD}"),
    ("a" * 32, "../../../jobs/manifest.json", f"{'a' * 32}/unsent/{SHARD}"),
    ("a" * 32, SHARD, "../../../../etc/passwd"),
    ("a" * 32, SHARD, f"{'a' * 32}/unsent/{SHARD}"),
)


@dataclass
class Machine:
    """A worker with its attempt at a job, and the folder that its training process would be told."""

    parts: WorkerParts
    claim: Claim
    workdir: Path

    def answering(self) -> AbstractContextManager[Exchange | None]:
        return answering(self.parts, self.claim, self.workdir)

    def shelves(self) -> Shelves:
        """As the training process opens them."""
        shared = shared_shards(self.parts, JobSpec.model_validate(self.claim.job.spec), self.workdir)
        assert shared is not None
        return Shelves(Path(shared.folder), AskedStore(Path(shared.exchange), Path(shared.folder)), shared.disk_bytes)

    def encode_missing(self) -> list[int]:
        with self.answering():
            shelves = self.shelves()
            cache = TensorCache(shelves, SPACE, shard_bytes=100)
            missing = [number for number in range(NUM) if cache.find(cache.key(str(number).encode())) is None]
            for number in missing:
                cache.add(cache.key(str(number).encode()), {"mean": torch.full((8, 8), float(number))})
                cache.flush_if_large()
            places = torch.tensor([cache.find(cache.key(str(number).encode())) for number in range(NUM)])
            assert torch.equal(cache.reader().read(places)["mean"][:, 0, 0], torch.arange(float(NUM)))
            shelves.settle()
        return missing


NewMachine = Callable[..., Machine]


@pytest.fixture
def objects(world: World, s3_server: S3Server) -> ObjectStore:
    return open_objects(s3_settings(s3_server, world.root))


@pytest.fixture
def machine(world: World, objects: ObjectStore) -> NewMachine:
    def new(name: str, dataset_id: str, **settings: object) -> Machine:
        parts = world.worker(name)
        changes = {"share_latents": True, "storage_patience_seconds": 0.0, **settings}
        parts = replace(parts, settings=parts.settings.model_copy(update=changes), objects=objects)
        claim = leases.claim(world.store, world.queue(dataset_id=dataset_id).id, name, 60)
        assert claim is not None
        return Machine(parts, claim, world.root / name / "work" / claim.job.id)

    return new


def test_a_second_worker_on_the_same_data_set_encodes_nothing(
    world: World, machine: NewMachine, objects: ObjectStore
) -> None:
    dataset_id = upload(world, b"PAR1")
    assert machine("first", dataset_id).encode_missing() == list(range(NUM))
    assert machine("second", dataset_id).encode_missing() == []
    prefix = f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset_id}/latents/"
    assert all(info.key.endswith(".safetensors") for info in objects.list(prefix))


def test_another_data_set_of_the_same_content_shares_nothing(world: World, machine: NewMachine) -> None:
    first, other = upload(world, b"PAR1"), upload(world, b"PAR1")
    machine("first", first).encode_missing()
    assert machine("first", other).encode_missing() == list(range(NUM))


def test_what_was_encoded_goes_with_its_data_set(world: World, machine: NewMachine, objects: ObjectStore) -> None:
    dataset_id = upload(world, b"PAR1")
    first = machine("first", dataset_id)
    first.encode_missing()
    leases.finish(
        world.store,
        first.claim.job.id,
        first.claim.attempt,
        "failed",
        JobError(code="x", message="x", category="system", retryable=False),
    )
    assert any("/latents/" in info.key for info in objects.list(f"projects/{DEFAULT_PROJECT_ID}/datasets/"))
    deletion.delete_dataset(world.store, DEFAULT_PROJECT_ID, dataset_id)
    remove_due(world.store, objects)
    remove_deleted_shards(first.parts)
    assert not any(dataset_id in info.key for info in objects.list(f"projects/{DEFAULT_PROJECT_ID}/"))
    assert not list((world.root / "first" / "cache" / "shards").iterdir())


def test_a_run_has_the_disk_to_itself_and_leaves_what_was_not_sent(world: World, machine: NewMachine) -> None:
    one, other = upload(world, b"PAR1"), upload(world, b"PAR1 of another")
    machine("first", one).encode_missing()
    folder = world.root / "first" / "cache" / "shards" / one
    (unsent := next(folder.glob("*/unsent")) / f"{'0' * 64}.safetensors").write_bytes(b"not sent yet")
    machine("first", other, shards_disk_bytes=10**6).shelves()
    assert [path for path in folder.rglob("*.safetensors") if path.parent.name != "keys"] == [unsent]


def test_a_run_can_neither_read_nor_publish_what_is_not_its_own(
    world: World, machine: NewMachine, objects: ObjectStore
) -> None:
    secret = world.root / "secret"
    secret.write_bytes(b"of another project")
    run = machine("first", upload(world, b"PAR1"))
    with run.answering() as exchange:
        assert exchange is not None
        shelves = Path(run.parts.settings.resolved_cache_dir, "shards")
        folder = next(shelves.iterdir()) / ("a" * 32) / "unsent"
        folder.mkdir(parents=True)
        (folder / f"{'a' * 64}.safetensors").symlink_to(secret)
        for verb, (namespace, name, place) in product(("put", "get"), QUESTIONS):
            answer = ask(run.workdir, {"verb": verb, "namespace": namespace, "name": name, "place": place})
            assert answer["outcome"] == "unavailable"
    assert not any("/latents/" in info.key for info in objects.list("projects/"))


def test_bytes_that_are_not_those_of_the_name_are_not_published(world: World, machine: NewMachine) -> None:
    run = machine("first", upload(world, b"PAR1"))
    with run.answering():
        folder = next(Path(run.parts.settings.resolved_cache_dir, "shards").iterdir()) / ("a" * 32) / "unsent"
        folder.mkdir(parents=True)
        (path := folder / f"{'a' * 64}.safetensors").write_bytes(b"altered")
        with pytest.raises(AlignmentError, match="object store does not answer"):
            AskedStore(run.workdir / "shards", folder.parents[1]).put("a" * 32, path)


def test_what_the_store_does_not_have_is_told_from_a_store_that_is_away(world: World, machine: NewMachine) -> None:
    class Silent:
        def get_file(self, key: str, path: Path) -> None:
            raise ObjectsUnavailable(key, "unreachable")

    run = machine("first", upload(world, b"PAR1"))
    wanted = ("a" * 32, "a" * 64 + ".safetensors")
    with run.answering():
        store = AskedStore(run.workdir / "shards", next((world.root / "first" / "cache" / "shards").glob("ds_*")))
        with pytest.raises(NotStored):
            store.get(*wanted, store_path(run))
    run.parts = replace(run.parts, objects=Silent())  # pyright: ignore[reportArgumentType]
    with run.answering() as exchange, pytest.raises(AlignmentError) as caught:
        store.get(*wanted, store_path(run))
    assert (caught.value.code, caught.value.retryable) == ("store_unavailable", True)
    assert exchange is not None
    assert exchange.away is not None
    assert exchange.away.error.code == "object_store_unreachable"


def store_path(run: Machine) -> Path:
    folder = next((run.parts.settings.resolved_cache_dir / "shards").glob("ds_*")) / ("a" * 32)
    folder.mkdir(exist_ok=True)
    return folder / f"{uuid.uuid4().hex}.tmp"


def ask(workdir: Path, question: dict[str, str | None]) -> dict[str, str]:
    """A question that no training process of ours would put."""
    asked, number = workdir / "shards" / "asked", uuid.uuid4().hex
    (asked / "written.tmp").write_text(json.dumps(question))
    (asked / "written.tmp").rename(asked / f"{number}.json")
    answer = asked.parent / "answered" / f"{number}.json"
    wait_until(answer.exists, "an answer")
    return json.loads(answer.read_bytes())


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_object_that_is_lost_while_a_run_reads_is_made_again_for_all(
    world: World, machine: NewMachine, objects: ObjectStore, is_gone: bool
) -> None:
    dataset_id = upload(world, b"PAR1")
    machine("first", dataset_id).encode_missing()
    run = machine("second", dataset_id, shards_disk_bytes=800)
    with run.answering():
        shelves = run.shelves()
        cache = TensorCache(shelves, SPACE, shard_bytes=100)
        places = torch.tensor([cache.find(cache.key(str(number).encode())) for number in range(NUM)])
        made: list[int] = []
        key = cache.keys_of_content

        def mend(shard: int) -> Mended:
            made.extend(numbers := [number for number in range(NUM) if places[number, 0] == shard])
            means = torch.stack([torch.full((8, 8), float(number)) for number in numbers])
            return Mended([key(str(one).encode()) for one in numbers], places[numbers, 1].tolist(), {"mean": means})

        reader = cache.reader(mend)
        shards = sorted(
            info.key for info in objects.list(f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset_id}/latents/")
        )
        broken = next(key for key in shards if "-" not in key.rpartition("/")[2] and not _is_here(run, key))
        objects.delete(broken) if is_gone else objects.put_bytes(broken, b"other bytes")
        for order in (range(NUM), reversed(range(NUM))):
            read = reader.read(places[list(order)])["mean"][:, 0, 0]
            assert sorted(read.tolist()) == list(range(NUM))
        shelves.settle()
        assert len(made) == 1
    assert machine("third", dataset_id).encode_missing() == []


def _is_here(run: Machine, key: str) -> bool:
    return any((run.parts.settings.resolved_cache_dir / "shards").rglob(key.rpartition("/")[2]))
