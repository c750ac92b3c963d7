"""Times in query parameters."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator


def _in_utc(time: datetime) -> datetime:
    """What names no zone is in UTC."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it lies before the year 1 or after the year 9999") from error


Moment = Annotated[datetime, AfterValidator(_in_utc)]
