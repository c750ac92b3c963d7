"""Encoded images and prompts of an uploaded data set, kept in the object store for other workers and for the jobs to come.

A training process has no keys of the store. It asks in a folder that it shares with its worker, on this host or over a cluster's
shared disk (`alignment_core/datasets/asked_store.py`), and a thread here answers. They lie below their data set, so nobody sees
another project's, and they go when the data set is deleted.
"""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from alignment_core.spec import JobSpec
from alignment_core.spec.places import AskedShards
from service.store import datasets, keys
from service.store.catalog import stored_datasets
from service.store.kinds import spec_of
from service.store.objects import ObjectNotFound
from service.store.records.jobs import Claim
from service.store.records.uploads import DatasetRecord
from service.store.unavailable import ObjectsUnavailable
from worker.inputs import sha256_of
from worker.parts import WorkerParts
from worker.patience import Away, wait_out
from worker.ranges import DATA, Ranges, ranges_of

SHARDS = "shards"
LOOK_EVERY_SECONDS = 0.05
THREADS = 8

NAMESPACE = re.compile(r"[0-9a-f]{32}")
FILE_NAME = re.compile(r"(?:[0-9a-f]{64}-)?([0-9a-f]{64})\.safetensors")
COMING = re.compile(r"[0-9a-f]{32}/[0-9a-f]{32}\.tmp")
GOING = re.compile(r"[0-9a-f]{32}/(?:unsent|keys)/[0-9a-f-]{64,129}\.safetensors")

log = structlog.get_logger()


def shared_shards(parts: WorkerParts, spec: JobSpec, workdir: Path) -> AskedShards | None:
    """Where a run finds what was encoded of its data set; None where it has none of its own, or sharing is off."""
    if not parts.settings.shares_latents or not (found := stored_datasets(spec)):
        return None
    dataset_id = found[0][1]
    if (limit := parts.settings.shards_disk_bytes) is not None:
        _make_room(parts, dataset_id)
    return AskedShards(folder=str(_folder(parts) / dataset_id), exchange=str(workdir / SHARDS), disk_bytes=limit)


@contextmanager
def answering(parts: WorkerParts, claim: Claim, workdir: Path) -> "Iterator[Exchange | None]":
    """Answer what the run of this attempt asks of the store, while it runs."""
    found = stored_datasets(spec_of(claim.job))
    if not found:
        yield None
        return
    dataset_id, project_id = found[0][1], claim.job.project_id
    ranges = ranges_of(parts, datasets.get(parts.store, project_id, dataset_id), workdir / DATA)
    if ranges is None and not parts.settings.shares_latents:
        yield None
        return
    prefix = keys.latents_prefix(project_id, dataset_id)
    exchange = Exchange(parts, project_id, dataset_id, workdir / SHARDS, ranges)
    try:
        with answered(exchange):
            yield exchange
    finally:
        if exchange.sent_bytes:
            _measure(parts, dataset_id, prefix)


@contextmanager
def answering_check(parts: WorkerParts, dataset: DatasetRecord, folder: Path) -> "Iterator[Exchange | None]":
    """Answer what the check of a data set asks of its file, if that is read by ranges; `folder` is the check's own."""
    if (ranges := ranges_of(parts, dataset, folder / DATA)) is None:
        yield None
        return
    with answered(Exchange(parts, dataset.project_id, dataset.id, folder / SHARDS, ranges)) as exchange:
        yield exchange


@contextmanager
def answered(exchange: "Exchange") -> "Iterator[Exchange]":
    thread = threading.Thread(target=exchange.answer_until_closed, name="shards", daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.closed.set()
        thread.join()


def _measure(parts: WorkerParts, dataset_id: str, prefix: str) -> None:
    """Note what the store holds of the data set by now; where it is away, the next run that sends something does."""
    try:
        size = sum(info.size_bytes for info in parts.objects.list(prefix))
    except ObjectsUnavailable as error:
        log.warning("shards_not_measured", dataset_id=dataset_id, error=repr(error))
    else:
        datasets.encoded(parts.store, dataset_id, size)


def remove_deleted_shards(parts: WorkerParts) -> None:
    """Remove what this machine keeps of data sets that no project has any more."""
    folders = {folder.name: folder for folder in _folder(parts).glob("ds_*")}
    for dataset_id in sorted(folders.keys() - datasets.existing(parts.store, list(folders))):
        shutil.rmtree(folders[dataset_id], ignore_errors=True)


class Exchange:
    """Answers the questions of one run. `away` is what kept the store from answering in the end."""

    def __init__(
        self, parts: WorkerParts, project_id: str, dataset_id: str, exchange: Path, ranges: Ranges | None = None
    ) -> None:
        self.closed = threading.Event()
        self.away: Away | None = None
        self.sent_bytes = self.fetched_bytes = self.read_bytes = 0
        self._parts, self._ranges, self._shelves = parts, ranges, _folder(parts) / dataset_id
        self._prefix, self._uses = keys.latents_prefix(project_id, dataset_id), keys.uses_prefix(project_id, dataset_id)
        self._asked, self._answered = exchange / "asked", exchange / "answered"
        for folder in (self._asked, self._answered, self._shelves):
            folder.mkdir(parents=True, exist_ok=True)

    def answer_until_closed(self) -> None:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="shards") as threads:
            while not self.closed.wait(LOOK_EVERY_SECONDS):
                for path in sorted(self._asked.glob("*.json")):
                    taken = path.rename(path.with_suffix(".taken"))
                    threads.submit(self._take, taken)
        log.info(
            "shards_exchanged",
            sent_bytes=self.sent_bytes,
            fetched_bytes=self.fetched_bytes,
            read_bytes=self.read_bytes,
        )

    def _take(self, path: Path) -> None:
        try:
            answer = self._answer(json.loads(path.read_bytes()))
        except ObjectNotFound:
            answer = {"outcome": "not_stored"}
        except Away as away:
            self.away = away
            answer = {"outcome": "unavailable", "message": away.error.message}
        except Exception as error:  # the run must not wait for an answer that nobody gives
            log.exception("question_not_answered")
            answer = {"outcome": "unavailable", "message": type(error).__name__}
        partial = self._answered / f"{path.stem}.tmp"
        partial.write_text(json.dumps(answer))
        partial.rename(partial.with_suffix(".json"))
        path.unlink()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question["verb"] == "range":
            if self._ranges is None:
                raise ValueError("the data set is here whole")
            self.read_bytes += self._ranges.write(question)
            return {"outcome": "done"}
        prefix = f"{self._prefix}{_matched(NAMESPACE, question['namespace'])}/"
        objects = self._parts.objects
        if question["verb"] == "names":
            self._mark_used(question["namespace"])
            infos = self._patiently(lambda: list(objects.list(prefix)))
            return {"outcome": "done", "names": [info.key.removeprefix(prefix) for info in infos]}
        key = prefix + _matched(FILE_NAME, question["name"])
        match question["verb"]:
            case "get":
                target = self._shelves / _matched(COMING, question["place"])
                self._patiently(lambda: objects.get_file(key, target))
                self.fetched_bytes += target.stat().st_size
            case "put":
                source = self._going(question)
                self._patiently(lambda: objects.put_file(key, source))
                self.sent_bytes += source.stat().st_size
            case "remove":
                self._patiently(lambda: objects.delete(key))
            case verb:
                raise ValueError(f"{verb!r} is no question")
        return {"outcome": "done"}

    def _mark_used(self, namespace: str) -> None:
        """A sweep takes what nobody has used for long (`worker/encoded.py`)."""
        self._patiently(lambda: self._parts.objects.put_bytes(f"{self._uses}{namespace}", b""))

    def _going(self, question: dict[str, Any]) -> Path:
        """The file to be kept: this run's own, and with the bytes that its name says, so that no other can be published."""
        path = self._shelves / _matched(GOING, question["place"])
        sha256 = FILE_NAME.fullmatch(path.name)
        if path.name != question["name"] or path.resolve() != self._shelves.resolve() / question["place"]:
            raise ValueError(f"{question['place']!r} is not where {question['name']!r} lies")
        if sha256 is None or sha256_of(path) != sha256[1]:
            raise ValueError(f"{path.name} has other bytes than its name says")
        return path

    def _patiently(self, use: Any) -> Any:
        return wait_out(use, self._parts.settings, self._parts.asked)


def _matched(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name of the cache")
    return text


def _folder(parts: WorkerParts) -> Path:
    return parts.settings.resolved_cache_dir / SHARDS


def _make_room(parts: WorkerParts, dataset_id: str) -> None:
    """Give back what the store has of other data sets: a run may fill the disk to its limit. What was not sent stays."""
    for path in _folder(parts).glob("ds_*/*/*.safetensors"):
        if path.parts[-3] != dataset_id:
            path.unlink(missing_ok=True)
