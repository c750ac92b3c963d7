"""Evaluations over HTTP. `client.evaluations` is one of these.

found = client.evaluations.create({"contenders": [...], "prompts": [...], "rewards": ["colorfulness"]})
print(client.evaluations.report(client.evaluations.wait(found.id).id).best)
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.reports import ProofReport
from alignment_core.spec import ProofSpec
from attune.connection import Connection, segment
from attune.downloads import download_file
from attune.event_stream import follow_path
from attune.requests import given, key_headers, logs_of
from attune.resources.evaluations import Evaluation, EvaluationSummary, EvaluationValidation, Verification
from attune.resources.jobs import JobStatus
from attune.resources.runs import JobEvent, Sample
from attune.waiting import AGAIN_SECONDS, until_ended


class Evaluations:
    """Models against each other. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        spec: ProofSpec | Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Evaluation:
        """Queue an evaluation; a request that is repeated makes one."""
        written = spec.model_dump(mode="json") if isinstance(spec, ProofSpec) else dict(spec)
        body = {"spec": written, **given({"name": name, "metadata": dict(metadata) if metadata else None})}
        headers = key_headers(idempotency_key)
        return Evaluation.model_validate(
            self._connection.request("POST", "/v1/evaluations", json=body, headers=headers)
        )

    def validate(self, spec: ProofSpec | Mapping[str, Any]) -> EvaluationValidation:
        """What is wrong in it, and what it would take; nothing is queued."""
        written = spec.model_dump(mode="json") if isinstance(spec, ProofSpec) else dict(spec)
        answer = self._connection.request("POST", "/v1/evaluations/validate", json={"spec": written})
        return EvaluationValidation.model_validate(answer)

    def list(self, *, status: Sequence[JobStatus] = ()) -> Iterator[EvaluationSummary]:
        """Evaluations, newest first, page by page as they are needed."""
        pages = self._connection.pages("/v1/evaluations", [("status", one) for one in status])
        return (EvaluationSummary.model_validate(entry) for entry in pages)

    def get(self, evaluation_id: str, *, wait_seconds: float = 0) -> Evaluation:
        """The evaluation as it is, or as it is when it has ended or `wait_seconds` are over."""
        return Evaluation.model_validate(self._connection.poll(_path(evaluation_id), wait_seconds))

    def wait(self, evaluation_id: str, timeout_seconds: float | None = None) -> Evaluation:
        """The evaluation once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
        return until_ended(
            lambda seconds: self.get(evaluation_id, wait_seconds=seconds),
            f"evaluation {evaluation_id} is",
            timeout_seconds,
        )

    def cancel(self, evaluation_id: str) -> EvaluationSummary:
        return self._change(evaluation_id, "cancel")

    def pause(self, evaluation_id: str) -> EvaluationSummary:
        """Have it leave the machine to others; what it has drawn is kept."""
        return self._change(evaluation_id, "pause")

    def resume(self, evaluation_id: str) -> EvaluationSummary:
        """Queue one again that failed or is paused; nothing is drawn twice."""
        return self._change(evaluation_id, "resume")

    def delete(self, evaluation_id: str) -> None:
        """Remove one that has ended, with everything that it left."""
        self._connection.request("DELETE", _path(evaluation_id))

    def verify(
        self, evaluation_id: str, *, num_prompts: int | None = None, idempotency_key: str | None = None
    ) -> Verification:
        """Have a worker draw and score some prompts once more; `wait_for_verification` has the outcome."""
        body, headers = given({"num_prompts": num_prompts}), key_headers(idempotency_key)
        return Verification.model_validate(
            self._connection.request("POST", f"{_path(evaluation_id)}/verify", json=body, headers=headers)
        )

    def wait_for_verification(
        self, evaluation_id: str, verification_id: str, timeout_seconds: float | None = None
    ) -> Verification:
        """The verification once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
        deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            found = next(one for one in self.get(evaluation_id).verifications if one.id == verification_id)
            if found.is_terminal:
                return found
            time.sleep(AGAIN_SECONDS)
            if time.monotonic() >= deadline:
                raise TimeoutError(f"verification {verification_id} is still {found.status}")

    def events(self, evaluation_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Every event after the id `after`, then live ones until it has ended; reconnects by itself."""
        return follow_path(self._connection, _path(evaluation_id), after)

    def logs(self, evaluation_id: str) -> str:
        """The end of what its processes printed, attempt after attempt."""
        return logs_of(self._connection, _path(evaluation_id))

    def pictures(self, evaluation_id: str) -> Iterator[Sample]:
        """A picture for each contender beside the anchor, in the order of the report."""
        pages = self._connection.pages(f"{_path(evaluation_id)}/pictures", [])
        return (Sample.model_validate(entry) for entry in pages)

    def download_pictures(self, evaluation_id: str, folder: str | Path) -> Sequence[Path]:
        """Save each picture as `1.png`, `2.png`, ... in the order of the report."""
        return [
            download_file(
                self._connection.http, one.image_url, one.file(f"{one.step}.png"), Path(folder) / f"{one.step}.png"
            )
            for one in self.pictures(evaluation_id)
        ]

    def report(self, evaluation_id: str) -> ProofReport:
        """Every contender against the anchor, and all that it was made with."""
        return ProofReport.model_validate(self._connection.request("GET", f"{_path(evaluation_id)}/report"))

    def download_page(self, evaluation_id: str, path: str | Path, *, contender: str | None = None) -> Path:
        """Save one comparison as `path`: an HTML page for people."""
        query = f"?contender={segment(contender)}" if contender is not None else ""
        return self._save(f"{_path(evaluation_id)}/report.html{query}", Path(path))

    def download_scores(self, evaluation_id: str, path: str | Path) -> Path:
        """Save every score as `path`, a parquet file."""
        return self._save(f"{_path(evaluation_id)}/scores.parquet", Path(path))

    def _change(self, evaluation_id: str, verb: str) -> EvaluationSummary:
        return EvaluationSummary.model_validate(self._connection.request("POST", f"{_path(evaluation_id)}/{verb}"))

    def _save(self, url: str, path: Path) -> Path:
        content = self._connection.request_bytes(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def _path(evaluation_id: str) -> str:
    return f"/v1/evaluations/{segment(evaluation_id)}"
