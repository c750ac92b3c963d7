"""The events of a job over connections that may break."""

import time
from collections.abc import Iterator

import httpx

from attune.connection import Connection
from attune.errors import AttuneError
from attune.requests import job_path
from attune.resources.runs import JobEvent

MOST_RECONNECTS = 10  # in a row, without an event in between
FIRST_SERVER_ERROR = 500  # a proxy answers so while the server behind it restarts


def follow(connection: Connection, job_id: str, after: str | None) -> Iterator[JobEvent]:
    """Every event after the id `after`, then live ones until the job has ended; reconnects by itself."""
    return follow_path(connection, job_path(job_id), after)


def follow_path(connection: Connection, path: str, after: str | None) -> Iterator[JobEvent]:
    """The same of a job or an evaluation that is at `path`."""
    failures = 0
    while True:
        try:
            for message in connection.stream(f"{path}/events", after):
                if message.event == "done":
                    return
                after, failures = message.id or after, 0
                yield JobEvent.model_validate_json(message.data)
        except httpx.TransportError as error:
            if failures >= MOST_RECONNECTS:
                raise AttuneError.unreachable(connection.base_url, error) from error
        except AttuneError as error:
            if failures >= MOST_RECONNECTS or (error.status or 0) < FIRST_SERVER_ERROR:
                raise
        time.sleep(min(0.2 * 2**failures, 10.0))
        failures += 1
