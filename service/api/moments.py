"""Times in query parameters."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator


def _is_written_out(value: Any) -> Any:
    """Pydantic takes a number for seconds since 1970; a time of ours is text, as the document says."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError("a time is written as in RFC 3339, such as 2026-11-28T12:00:00Z, and is no number")


def _in_utc(time: datetime) -> datetime:
    """What names no zone is in UTC."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it lies before the year 1 or after the year 9999") from error


Moment = Annotated[datetime, BeforeValidator(_is_written_out), AfterValidator(_in_utc)]
