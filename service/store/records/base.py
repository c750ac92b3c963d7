"""What all records have in common: slices of lists, errors, stored files."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from alignment_core.errors import Category

T = TypeVar("T")


@dataclass(frozen=True)
class Slice(Generic[T]):
    """A slice of a list, newest first unless said otherwise."""

    data: tuple[T, ...]
    has_more: bool


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, extra="forbid")


class JobError(Record):
    """Why a job or a dataset failed: `user` can mend it, `system` is ours, `capacity` passes."""

    code: str
    message: str
    category: Category
    retryable: bool = False
    hint: str | None = None


class StoredFile(Record):
    """A file in the object store, under the name `path` that its owner knows it by."""

    path: str
    size_bytes: int
    sha256: str
    object_key: str
    crc32: int | None = None
