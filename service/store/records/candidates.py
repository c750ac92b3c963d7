"""Images that people judge, and what they said of them."""

from datetime import datetime
from typing import Literal

from service.store.records.base import Record, StoredFile


class CandidateImageRecord(Record):
    """An image of a contender; `position` is the place of its prompt, `number` that of its seed among those of the prompt."""

    id: str
    job_id: str
    project_id: str
    contender: str
    position: int
    number: int
    prompt: str
    seed: int
    attempt: int
    width: int
    height: int
    pixels_sha256: str
    fingerprint: str
    drawn_alike: str
    reused: bool
    size_bytes: int
    sha256: str
    object_key: str
    created_at: datetime

    @property
    def file(self) -> StoredFile:
        """Where it is, under the name that its fingerprint gives it."""
        return StoredFile(
            path=f"{self.fingerprint}.png", size_bytes=self.size_bytes, sha256=self.sha256, object_key=self.object_key
        )


class LabelingRecord(Record):
    """Pairs of candidates that people judge."""

    id: str
    project_id: str
    name: str | None
    candidates_id: str
    between: list[str] | None
    report_of: str | None
    seed: int
    num_pairs: int
    num_questions: int
    created_at: datetime


class VoteRecord(Record):
    """What somebody said last of a question."""

    labeling_id: str
    annotator: str
    number: int
    project_id: str
    choice: Literal["first", "second", "tie", "both_bad", "skip"]
    voted_at: datetime
