"""What evaluations and candidates answer alike: both queue models that draw side by side."""

from collections.abc import Callable
from typing import Any

from fastapi import Response

from service.api.contenders import resolved_contenders
from service.api.context import Parts
from service.api.idempotency import Once
from service.api.lookup import whole_or_404
from service.api.proof_admission import ContestRequest, admitted
from service.api.quotas import submit_headers
from service.api.schemas.base import Entry
from service.api.schemas.candidates import CandidatesRequest
from service.store import contests
from service.store.ancestry import CheckpointGone
from service.store.kinds import Kind
from service.store.queueing import DatasetGone
from service.store.records.jobs import JobRecord


def create_once(
    parts: Parts,
    project_id: str,
    once: Once,
    body: ContestRequest,
    show: Callable[[JobRecord], Entry],
    *,
    before_others: bool = False,
) -> Response:
    """201 with the new row as `show` has it, or the first request's answer again; 422 with all that keeps this server from running it."""

    def create(contest_id: str | None) -> Entry:
        return show(_queued(parts, project_id, body, contest_id, before_others=before_others))

    def spec_of(contest_id: str) -> Any:
        return whole_or_404(kind, parts.store, project_id, contest_id).spec

    kind: Kind = "cand" if isinstance(body, CandidatesRequest) else "eval"
    place = "/v1/candidates" if kind == "cand" else "/v1/evaluations"
    answer = once(kind, place, body.model_dump(mode="json"), create, {"spec": spec_of})
    answer.headers.update(submit_headers(parts, project_id))
    return answer


def _queued(
    parts: Parts, project_id: str, body: ContestRequest, contest_id: str | None, *, before_others: bool
) -> JobRecord:
    spec = admitted(parts, project_id, body.spec)
    try:
        row = contests.create(
            parts.store,
            project_id=project_id,
            spec=spec,
            name=body.name,
            metadata=body.metadata,
            contest_id=contest_id,
            before_others=before_others,
        )
    except (DatasetGone, CheckpointGone):  # deleted just now
        resolved_contenders(parts, project_id, body.spec)
        raise
    parts.bell.ring(row.id)
    return row
