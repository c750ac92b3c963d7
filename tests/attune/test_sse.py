"""Server-sent events are read as the standard says."""

from hypothesis import given
from hypothesis import strategies as st

from attune.sse import Message, messages


def test_fields_are_put_together_and_ids_are_remembered() -> None:
    lines = ["id: 1", "event: step", "data: a", "data: b", "", "data:c", "", ": heartbeat", "", "data: unfinished"]
    assert list(messages(lines)) == [Message("step", "a\nb", "1"), Message("message", "c", "1")]


def test_an_event_without_data_and_an_id_with_nul_are_ignored() -> None:
    assert list(messages(["event: ping", "", "id: a\0b", "data: x", ""])) == [Message("message", "x", None)]


@given(st.lists(st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"])), min_size=1))
def test_what_a_server_writes_is_what_a_client_reads(parts: list[str]) -> None:
    written = ["event: e", *(f"data: {part}" for part in parts), ""]
    assert list(messages(written)) == [Message("e", "\n".join(parts), None)]
