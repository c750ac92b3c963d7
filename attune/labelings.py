"""Labelings over HTTP: pairs of candidates that people judge. `client.labelings` is one of these.

found = client.labelings.create(candidates_id, num_pairs=200)
for question in client.labelings.next(found.id).data:
    client.labelings.vote(found.id, question.question, "left")
dataset = client.labelings.make_dataset(found.id)
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from alignment_core.reports import HumanComparison
from attune.connection import Connection, segment
from attune.requests import given, key_headers
from attune.resources.base import Resource
from attune.resources.data import Dataset

Choice = Literal["left", "right", "tie", "both_bad", "skip"]


class LabelingResource(Resource):
    """Pairs of candidates that people judge."""

    id: str
    name: str | None
    candidates_id: str
    between: list[str] | None
    report_of: str | None
    seed: int
    num_pairs: int
    num_questions: int
    answered: int = 0
    created_at: datetime


class Shown(Resource):
    """An image of a question."""

    image_id: str
    image_url: str
    width: int
    height: int


class Question(Resource):
    """Which is better?"""

    question: int
    prompt: str
    left: Shown
    right: Shown


class QuestionProgress(Resource):
    """How far somebody is; `last` is what undo takes back."""

    annotator: str
    answered: int
    total: int
    last: int | None


class NextQuestions(Resource):
    data: list[Question]
    progress: QuestionProgress


class Vote(Resource):
    question: int
    choice: Choice | None
    progress: QuestionProgress


class LabelingResults(Resource):
    """Who has judged how much, how far they agree, and who won."""

    labeling_id: str
    num_judged_pairs: int
    annotators: list[dict[str, Any]]
    agreement: list[dict[str, Any]]
    alpha: float | None
    human: HumanComparison | None


class Labelings:
    """Pairs to judge. Every method raises `AttuneError` when the server says no or does not answer.

    `annotator` is who judges, on a server without keys; elsewhere it is the key.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        candidates_id: str,
        *,
        num_pairs: int | None = None,
        repeated: float | None = None,
        seed: int | None = None,
        between: Sequence[str] | None = None,
        report_of: str | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> LabelingResource:
        """Make pairs of candidates that have ended; with `between` two models are compared blind."""
        told = {
            "num_pairs": num_pairs,
            "repeated": repeated,
            "seed": seed,
            "between": None if between is None else list(between),
            "report_of": report_of,
            "name": name,
        }
        body, headers = {"candidates_id": candidates_id, **given(told)}, key_headers(idempotency_key)
        answer = self._connection.request("POST", "/v1/labelings", json=body, headers=headers)
        return LabelingResource.model_validate(answer)

    def list(self, *, annotator: str | None = None) -> Iterator[LabelingResource]:
        """Labelings, newest first, page by page as they are needed, with how far somebody is with each."""
        params = list(given({"annotator": annotator}).items())
        return (LabelingResource.model_validate(entry) for entry in self._connection.pages("/v1/labelings", params))

    def get(self, labeling_id: str, *, annotator: str | None = None) -> LabelingResource:
        params = given({"annotator": annotator})
        return LabelingResource.model_validate(self._connection.request("GET", _path(labeling_id), params=params))

    def delete(self, labeling_id: str) -> None:
        """Remove one with all its votes."""
        self._connection.request("DELETE", _path(labeling_id))

    def next(self, labeling_id: str, *, annotator: str | None = None, limit: int = 1) -> NextQuestions:
        """What somebody has not answered yet, in their own order."""
        params = {"limit": limit, **given({"annotator": annotator})}
        answer = self._connection.request("GET", f"{_path(labeling_id)}/next", params=params)
        return NextQuestions.model_validate(answer)

    def vote(self, labeling_id: str, question: int, choice: Choice, *, annotator: str | None = None) -> Vote:
        """Answer a question; sent again it changes nothing."""
        path, params = f"{_path(labeling_id)}/votes/{question}", given({"annotator": annotator})
        return Vote.model_validate(self._connection.request("PUT", path, params=params, json={"choice": choice}))

    def undo(self, labeling_id: str, question: int, *, annotator: str | None = None) -> Vote:
        """Take an answer back: it is asked again."""
        path, params = f"{_path(labeling_id)}/votes/{question}", given({"annotator": annotator})
        return Vote.model_validate(self._connection.request("DELETE", path, params=params))

    def results(self, labeling_id: str) -> LabelingResults:
        return LabelingResults.model_validate(self._connection.request("GET", f"{_path(labeling_id)}/results"))

    def make_dataset(
        self,
        labeling_id: str,
        *,
        name: str | None = None,
        both_bad: Literal["drop", "tie"] | None = None,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Make a data set of the votes so far; `client.wait_for_dataset` has it checked."""
        path, headers = f"{_path(labeling_id)}/dataset", key_headers(idempotency_key)
        body = given({"name": name, "both_bad": both_bad})
        return Dataset.model_validate(self._connection.request("POST", path, json=body, headers=headers))


def _path(labeling_id: str) -> str:
    return f"/v1/labelings/{segment(labeling_id)}"
