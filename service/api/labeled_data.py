"""A data set of what people said: a zip of `pairs.jsonl` and the images, as an upload of the normal kind."""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from service.api.checked_uploads import store_upload
from service.api.context import Parts
from service.api.judgements import Judged, judged_pairs
from service.api.schemas.datasets import Dataset
from service.api.uploads import Upload, on_disk, told_disk_errors
from service.errors import ApiError
from service.store import candidates, datasets, jobs, labelings
from service.store.objects import ObjectNotFound
from service.store.records.candidates import CandidateImageRecord, LabelingRecord, VoteRecord
from service.store.records.jobs import JobRecord

TABLE, ZIP = "pairs.jsonl", ".zip"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # so that the same votes make the same bytes


def make_dataset(
    parts: Parts, labeling: LabelingRecord, name: str | None, both_bad: Literal["drop", "tie"], dataset_id: str | None
) -> Dataset:
    """Make the data set and have a worker check it. Raises 409 where nobody has judged a pair, or the images are deleted meanwhile.

    One that has its file is not made anew, whatever was said since a first request under the same key was broken off.
    """
    there = None if dataset_id is None else datasets.get(parts.store, labeling.project_id, dataset_id)
    if there is not None and there.state != "uploading":
        return Dataset.of(there)
    votes = labelings.votes(parts.store, labeling.id)
    judged = list(judged_pairs(labelings.questions(parts.store, labeling.id), votes, both_bad))
    if not judged:
        detail = f"labeling {labeling.id!r} cannot be made a data set: nobody has judged a pair of it"
        raise ApiError(409, "nothing_judged", detail)
    ids = list(dict.fromkeys(found for one in judged for found in (one.question.first_id, one.question.second_id)))
    images = labelings.images_of(parts.store, ids)
    drawn = jobs.get(parts.store, labeling.project_id, labeling.candidates_id)
    if drawn is None or len(images) < len(ids):
        raise _deleted(labeling)
    provenance = _provenance(parts, labeling, drawn, judged, votes, both_bad)
    with on_disk(parts.settings) as file:
        try:
            _write(parts, file, labeling, judged, images)
        except ObjectNotFound as error:
            if jobs.get(parts.store, labeling.project_id, labeling.candidates_id) is None:
                raise _deleted(labeling) from error
            raise
        path = Path(file.name)
        with path.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        upload = Upload(path, f"{labeling.id}{ZIP}", path.stat().st_size, sha256, {})
        made = datasets.create(
            parts.store,
            project_id=labeling.project_id,
            filename=upload.filename,
            size_bytes=upload.size_bytes,
            name=name or labeling.name,
            dataset_id=dataset_id,
            provenance=provenance,
        )
        return Dataset.of(store_upload(parts, made, upload, ZIP))


def _deleted(labeling: LabelingRecord) -> ApiError:
    """409 for images that went while they were read: somebody deleted the labeling, and then what it shows."""
    why = f"candidates {labeling.candidates_id!r}, whose images it shows, were deleted meanwhile"
    return ApiError(409, "candidates_deleted", f"labeling {labeling.id!r} cannot be made a data set: {why}")


def _write(
    parts: Parts,
    target: IO[bytes],
    labeling: LabelingRecord,
    judged: Sequence[Judged],
    images: Mapping[str, CandidateImageRecord],
) -> None:
    with told_disk_errors():
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            rows = [json.dumps(_row(labeling, one, images), ensure_ascii=False) for one in judged]
            archive.writestr(zipfile.ZipInfo(TABLE, EARLIEST), "\n".join(rows) + "\n")
            for image in images.values():
                info = zipfile.ZipInfo(_file(image), EARLIEST)
                info.file_size = image.size_bytes
                with archive.open(info, "w") as file:
                    for chunk in parts.objects.open_range(image.object_key):
                        file.write(chunk)
        target.flush()


def _row(labeling: LabelingRecord, one: Judged, images: Mapping[str, CandidateImageRecord]) -> dict[str, Any]:
    """A pair in the form of docs/data.md, and what it follows from."""
    first, second = images[one.question.first_id], images[one.question.second_id]
    chosen, rejected = (second, first) if one.second > 0.5 else (first, second)
    return {
        "prompt": chosen.prompt,
        "chosen": _file(chosen),
        "rejected": _file(rejected),
        "label": max(one.second, 1 - one.second),
        "group_id": f"{labeling.candidates_id}/{chosen.position}",
        "num_votes": one.num_votes,
        "chosen_model": chosen.contender,
        "rejected_model": rejected.contender,
        "chosen_seed": chosen.seed,
        "rejected_seed": rejected.seed,
    }


def _file(image: CandidateImageRecord) -> str:
    return f"images/{image.id}.png"


def _provenance(
    parts: Parts,
    labeling: LabelingRecord,
    drawn: JobRecord,
    judged: Sequence[Judged],
    votes: Sequence[VoteRecord],
    both_bad: str,
) -> dict[str, Any]:
    recipes = candidates.recipes_of(parts.store, labeling.project_id, labeling.candidates_id)
    return {
        "labeling_id": labeling.id,
        "candidates_id": labeling.candidates_id,
        "candidates_sha256": drawn.spec_sha256,
        "contenders": drawn.spec["contenders"],
        "sampling": drawn.spec["sampling"],
        "seed": drawn.spec["seed"],
        "recipes": [recipe for _, recipe in sorted(recipes.items())],
        "both_bad": both_bad,
        "num_pairs": len(judged),
        "num_votes": sum(one.num_votes for one in judged),
        "annotators": sorted({one.annotator for one in votes}),
    }
