"""Server-sent events as the WHATWG HTML standard defines them: lines in, messages out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event of a stream. `id` is the last id seen so far, as the standard has it."""

    event: str
    data: str
    id: str | None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages of a stream of lines without their ends; comments and an unfinished last message are dropped."""
    event, data, last_id = "", [], None
    for line in lines:
        if not line:
            if data:
                yield Message(event or "message", "\n".join(data), last_id)
            event, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                last_id = value
