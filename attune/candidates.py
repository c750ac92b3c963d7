"""Candidates over HTTP: images that models draw for people to judge. `client.candidates` is one of these.

found = client.candidates.create({"contenders": [{"name": "base", "model": "shapes"}], "prompts": ["a red circle"]})
client.candidates.download(client.candidates.wait(found.id).id, "images")
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from alignment_core.reports import ImageRecipe
from alignment_core.spec import CandidatesSpec
from attune.connection import Connection, segment
from attune.event_stream import follow_path
from attune.requests import given, key_headers, logs_of
from attune.resources.base import Resource, ResourceError
from attune.resources.evaluations import EvaluationValidation, ImageProgress
from attune.resources.jobs import JobStatus, QueuePlace
from attune.resources.runs import JobEvent
from attune.waiting import until_ended


class CandidatesSummary(Resource):
    """Images that are drawn to be judged, without the spec."""

    id: str
    name: str | None
    metadata: dict[str, str]
    status: JobStatus
    is_terminal: bool
    phase: str | None
    attempt: int
    queue: QueuePlace | None
    progress: ImageProgress
    error: ResourceError | None
    spec_sha256: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class CandidatesResource(CandidatesSummary):
    """The same with its spec."""

    spec: dict[str, Any]


class CandidateImage(Resource):
    """An image, and all that it follows from."""

    id: str
    candidates_id: str
    contender: str
    position: int
    number: int
    prompt: str
    seed: int
    width: int
    height: int
    pixels_sha256: str
    reused: bool
    size_bytes: int
    sha256: str
    recipe: ImageRecipe
    image_url: str
    created_at: datetime


class Playground(Resource):
    """Whether the server draws one prompt at once, and how long it may take."""

    is_on: bool
    max_run_seconds: float


class Candidates:
    """Images to judge. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        spec: CandidatesSpec | Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> CandidatesResource:
        """Queue candidates; a request that is repeated makes one."""
        body = {"spec": _written(spec), **given({"name": name, "metadata": dict(metadata) if metadata else None})}
        answer = self._connection.request("POST", "/v1/candidates", json=body, headers=key_headers(idempotency_key))
        return CandidatesResource.model_validate(answer)

    def playground(self) -> Playground:
        """Whether `play` draws on this server."""
        return Playground.model_validate(self._connection.request("GET", "/v1/playground"))

    def play(
        self,
        prompt: str,
        contenders: Sequence[Mapping[str, Any]],
        *,
        seed: int = 0,
        sampling: Mapping[str, Any] | None = None,
    ) -> CandidatesResource:
        """Have one prompt drawn at once by one or two models, before all jobs; refused where the playground is off."""
        body = {"prompt": prompt, "seed": seed, "contenders": [dict(one) for one in contenders]}
        body |= given({"sampling": None if sampling is None else dict(sampling)})
        answer = self._connection.request("POST", "/v1/playground", json=body, headers=key_headers(None))
        return CandidatesResource.model_validate(answer)

    def validate(self, spec: CandidatesSpec | Mapping[str, Any]) -> EvaluationValidation:
        """What is wrong in it, and what it would take; nothing is queued."""
        answer = self._connection.request("POST", "/v1/candidates/validate", json={"spec": _written(spec)})
        return EvaluationValidation.model_validate(answer)

    def list(self, *, status: Sequence[JobStatus] = ()) -> Iterator[CandidatesSummary]:
        """Candidates, newest first, page by page as they are needed."""
        pages = self._connection.pages("/v1/candidates", [("status", one) for one in status])
        return (CandidatesSummary.model_validate(entry) for entry in pages)

    def get(self, candidates_id: str, *, wait_seconds: float = 0) -> CandidatesResource:
        """The candidates as they are, or as they are when they have ended or `wait_seconds` are over."""
        return CandidatesResource.model_validate(self._connection.poll(_path(candidates_id), wait_seconds))

    def wait(self, candidates_id: str, timeout_seconds: float | None = None) -> CandidatesResource:
        """The candidates once they have ended; `TimeoutError` when they have not within `timeout_seconds`."""
        return until_ended(
            lambda seconds: self.get(candidates_id, wait_seconds=seconds),
            f"candidates {candidates_id} are",
            timeout_seconds,
        )

    def cancel(self, candidates_id: str) -> CandidatesSummary:
        return self._change(candidates_id, "cancel")

    def pause(self, candidates_id: str) -> CandidatesSummary:
        """Have them leave the machine to others; what is drawn is kept."""
        return self._change(candidates_id, "pause")

    def resume(self, candidates_id: str) -> CandidatesSummary:
        """Queue ones again that failed or are paused; nothing is drawn twice."""
        return self._change(candidates_id, "resume")

    def delete(self, candidates_id: str) -> None:
        """Remove ones that have ended, with all their images."""
        self._connection.request("DELETE", _path(candidates_id))

    def events(self, candidates_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Every event after the id `after`, then live ones until they have ended; reconnects by itself."""
        return follow_path(self._connection, _path(candidates_id), after)

    def logs(self, candidates_id: str) -> str:
        """The end of what their processes printed, attempt after attempt."""
        return logs_of(self._connection, _path(candidates_id))

    def images(self, candidates_id: str, *, contender: str | None = None) -> Iterator[CandidateImage]:
        """The images that are there, in the order in which they came, page by page as they are needed."""
        query = [] if contender is None else [("contender", contender)]
        pages = self._connection.pages(f"{_path(candidates_id)}/images", query)
        return (CandidateImage.model_validate(entry) for entry in pages)

    def download(self, candidates_id: str, folder: str | Path) -> Sequence[Path]:
        """Save every image as `folder/CONTENDER/PROMPT-SEED.png`, both by their places."""
        saved = []
        for one in self.images(candidates_id):
            path = Path(folder) / one.contender / f"{one.position:05d}-{one.number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._connection.request_bytes(f"{_path(candidates_id)}/images/{segment(one.id)}.png"))
            saved.append(path)
        return saved

    def _change(self, candidates_id: str, verb: str) -> CandidatesSummary:
        return CandidatesSummary.model_validate(self._connection.request("POST", f"{_path(candidates_id)}/{verb}"))


def _written(spec: CandidatesSpec | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, CandidatesSpec) else dict(spec)


def _path(candidates_id: str) -> str:
    return f"/v1/candidates/{segment(candidates_id)}"
