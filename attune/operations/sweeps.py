"""Sweeps: a job for each point of a search."""

from collections.abc import Iterator, Mapping
from typing import Any

from attune.connection import Connected, segment
from attune.requests import key_headers
from attune.resources.sweeps import Sweep, SweepSummary


def create_sweep(client: Connected, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Sweep:
    """Run a job for each point of `body["search"]`, at most `at_once` of them at the same time; `body` as of `POST /v1/sweeps`."""
    headers = key_headers(idempotency_key)
    return Sweep.model_validate(client.connection.request("POST", "/v1/sweeps", json=dict(body), headers=headers))


def get_sweep(client: Connected, sweep_id: str) -> Sweep:
    """The sweep with its score table."""
    return Sweep.model_validate(client.connection.request("GET", f"/v1/sweeps/{segment(sweep_id)}"))


def sweeps(client: Connected) -> Iterator[SweepSummary]:
    """Sweeps, newest first, page by page as they are needed."""
    return (SweepSummary.model_validate(entry) for entry in client.connection.pages("/v1/sweeps", []))


def cancel_sweep(client: Connected, sweep_id: str) -> SweepSummary:
    """Queue no further trial, and cancel the jobs that have not ended."""
    return SweepSummary.model_validate(client.connection.request("POST", f"/v1/sweeps/{segment(sweep_id)}/cancel"))


def delete_sweep(client: Connected, sweep_id: str) -> None:
    """Remove one that is over, with its table; its jobs stay."""
    client.connection.request("DELETE", f"/v1/sweeps/{segment(sweep_id)}")
