"""What a run says and shows."""

import json
from typing import Any

from pydantic import ValidationError

from alignment_core.events import Event, SampleGrid, event_from_json
from attune.resources.base import Resource
from attune.resources.checkpoints import CheckpointFile


class Sample(Resource):
    id: str
    step: int
    prompts: list[str]
    grid: SampleGrid | None = None
    checkpoint_id: str | None = None
    size_bytes: int
    sha256: str
    image_url: str

    def file(self, name: str) -> CheckpointFile:
        """The picture as a file of this name that a download is checked against."""
        return CheckpointFile(path=name, size_bytes=self.size_bytes, sha256=self.sha256)


class JobEvent(Resource):
    """Something that happened in a run; `event` is what happened, typed where this client knows the type."""

    id: str
    sequence: int
    attempt: int
    type: str
    data: dict[str, Any]

    @property
    def event(self) -> Event | None:
        try:
            return event_from_json(json.dumps(self.data))
        except ValidationError:
            return None  # of a newer server


class MetricPoint(Resource):
    step: int
    metrics: dict[str, float | None]
