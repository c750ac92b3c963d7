"""Data sets of what people said: each holds what had been said when its file was stored, whatever is asked again or deleted later."""

import hashlib
import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import Literal, cast

from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import World, judge, pick
from service.api.context import Parts
from service.api.labeled_data import TABLE, make_dataset
from service.store import datasets, keys, labelings
from service.store.ids import new_id
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.candidates import LabelingRecord

BothBad = Literal["drop", "tie"]


@dataclass(frozen=True)
class Request:
    """Sent again under its key it has the same id."""

    labeling: LabelingRecord
    both_bad: BothBad
    dataset_id: str


def make(world: World, index: int, both_bad: BothBad, death: Death | None) -> None:
    _send(world, Request(pick(world.ballots, index), both_bad, new_id("ds")), death)


def make_again(world: World, index: int, death: Death | None) -> None:
    """By somebody whose request had no answer; people may have said more, or something else, since."""
    _send(world, world.unanswered.pop(-1 - index % len(world.unanswered)), death)


def _send(world: World, request: Request, death: Death | None) -> None:
    """As of an upload the row comes first, then the object, then the row says that it is there."""
    labeling, dataset = world.told.labelings.get(request.labeling.id), world.told.datasets.get(request.dataset_id)
    if labeling is None:
        return  # as the request finds out first
    said, time = _said(world, labeling, request.both_bad), world.clock.time
    parts = cast(Parts, world.api_parts)
    call = lambda: make_dataset(parts, request.labeling, None, request.both_bad, request.dataset_id)  # noqa: E731
    outcome = world.ask("makeDataset", call, death)
    if outcome.died:
        world.unanswered.append(request)
    if dataset is not None and dataset.state != "uploading":
        assert outcome.refusal is None, "it is there, and not shown"
        return
    if not judge(outcome, allowed=bool(said)):
        return
    if dataset is None:
        dataset = told.Dataset(request.dataset_id, uploading_since=time, is_made=True)
        world.told.datasets[dataset.id] = dataset
    if outcome.commits > 1:
        dataset.state, dataset.key = "checking", keys.dataset_key(PROJECT, dataset.id, ".zip")
        dataset.said = said


def _said(world: World, labeling: told.Labeling, both_bad: BothBad) -> Counter[frozenset[str]]:
    """Votes that count, by the two images of their pair; what is asked a second time is no second vote."""
    asked = {
        one.number: frozenset({one.first_id, one.second_id})
        for one in labelings.questions(world.store, labeling.id)
        if one.repeat_of is None
    }
    left_out = ("skip", *(["both_bad"] if both_bad == "drop" else []))
    return Counter(
        asked[number] for (_, number), choice in labeling.votes.items() if choice not in left_out and number in asked
    )


def check(world: World) -> None:
    """That every such data set holds what was said, and that its row has the hash of its file and tells as many votes."""
    for one in world.told.datasets.values():
        if one.is_made and one.key is not None:
            content, record = b"".join(world.objects.open_range(one.key)), datasets.get(world.store, PROJECT, one.id)
            assert record is not None
            assert record.sha256 == hashlib.sha256(content).hexdigest(), f"{one.id} has another file than its row says"
            assert _votes_in(content) == one.said, f"{one.id} does not hold what was said"
            assert record.provenance is not None
            assert record.provenance["num_votes"] == one.said.total(), f"{one.id} tells other votes than it holds"


def _votes_in(content: bytes) -> Counter[frozenset[str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        rows = [json.loads(line) for line in archive.read(TABLE).splitlines()]
        files = set(archive.namelist()) - {TABLE}
    assert files == {row[side] for row in rows for side in ("chosen", "rejected")}
    return Counter(
        {
            frozenset(row[side].removeprefix("images/").removesuffix(".png") for side in ("chosen", "rejected")): row[
                "num_votes"
            ]
            for row in rows
        }
    )
