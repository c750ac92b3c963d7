"""What a file of prompts held, or why it is no set of prompts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PromptsFormat = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]

MOST_TOLD = 100  # errors


class PromptsReport(BaseModel):
    """What a file of prompts held."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: PromptsFormat
    column: str | None = Field(description="The column or key that was read; null for text and for lists of strings.")
    num_rows: int
    num_prompts: int = Field(description="Different prompts that are not empty: those of the set.")
    num_duplicates: int = Field(description="Rows that repeat an earlier prompt, which are left out.")
    duplicate_rows: list[int] = Field(description="The first of them, counted from 1.")
    num_empty: int = Field(description="Rows without a prompt, which are left out.")
    empty_rows: list[int] = Field(description="The first of them, counted from 1.")
    sha256: str = Field(description="SHA-256 of the canonical JSON list of the prompts.")


@dataclass(frozen=True)
class BadRow:
    """Why a row, counted from 1, or with None the file, cannot be read."""

    row: int | None
    code: str
    message: str

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}: {self.message}"


class PromptsRefused(ValueError):  # noqa: N818 - a state of affairs, read as one
    """The file is no set of prompts; `problems` says why, at most a hundred times."""

    def __init__(self, problems: list[BadRow]) -> None:
        super().__init__("; ".join(map(str, problems[:3])))
        self.problems = problems


def refused(code: str, message: str) -> PromptsRefused:
    """What is wrong with the file as a whole."""
    return PromptsRefused([BadRow(None, code, message)])


Row = tuple[int, str | BadRow]
Rows = Iterator[Row]


@dataclass(frozen=True)
class PromptsFile:
    """An open file of prompts: the column that is read, and its rows."""

    format: PromptsFormat
    column: str | None
    rows: Rows


def line_of(prompt: str) -> bytes:
    """A prompt as a line of the jsonl file that a set is kept as."""
    return json.dumps({"prompt": prompt}, ensure_ascii=False).encode() + b"\n"
