"""A log that goes on: a page is told what is new after its mark, however much of the beginning is no longer kept."""

import random
from pathlib import Path

import pytest

from service.store import outputs
from service.web.job_log import MARKED, NOTHING, Piece, mark_of, news, shown
from tests.service.api.world import Api
from tests.service.web.test_pages import HOSTILE, client_of


def lines(first: int, last: int) -> str:
    return "".join(f"step {number} loss {random.Random(number).random()}\n" for number in range(first, last))


@pytest.mark.parametrize("kept", [2_000, 100_000])
@pytest.mark.parametrize("seen", [0, 1, 40, 99, 100])
def test_what_follows_is_told_once_and_whole(seen: int, kept: int) -> None:
    """`kept` letters of 100 lines are there when a page that has `seen` of them asks."""
    all_of_it = lines(0, 100)
    has_mark = seen == 0 or len(all_of_it) <= kept or len(lines(0, seen)) - MARKED >= len(all_of_it) - kept
    mark = mark_of([Piece(1, lines(0, seen)[-kept:])])
    found = news([Piece(1, all_of_it[-kept:])], mark)
    if seen == 100:
        assert found == []
    elif has_mark:
        assert found == [Piece(1, lines(seen, 100)[-kept:], follows=True)]
    else:
        assert found == [Piece(1, all_of_it[-kept:])]


def test_a_line_that_is_being_written_waits_and_comes_with_its_end() -> None:
    running = shown([{"attempt": 1, "text": "whole\nhal"}], has_ended=False)
    assert running == [Piece(1, "whole\n")]
    ended = shown([{"attempt": 1, "text": "whole\nhalf"}], has_ended=True)
    assert news(ended, mark_of(running)) == [Piece(1, "half", follows=True)]
    assert news(ended, mark_of(ended)) == []


def test_a_later_attempt_comes_with_the_end_of_the_one_before() -> None:
    running = shown([{"attempt": 1, "text": "a\nb"}], has_ended=False)
    logs = [{"attempt": 1, "text": "a\nbroke"}, {"attempt": 2, "text": "again\n"}]
    assert news(shown(logs, has_ended=False), mark_of(running)) == [
        Piece(1, "broke", follows=True),
        Piece(2, "again\n"),
    ]


@pytest.mark.parametrize("mark", ["", ":", NOTHING, "x:y", "9" * 50, "1:", "-1:0", HOSTILE])
def test_a_mark_that_is_none_has_all_of_it_told(mark: str) -> None:
    pieces = [Piece(1, "a\n"), Piece(2, "b\n")]
    assert news(pieces, mark) in (pieces, []), "or nothing, for one after all of them"


def test_a_page_that_has_some_is_told_the_rest_as_json(tmp_path: Path) -> None:
    api = Api(client_of(tmp_path))
    job_id = api.new_job()
    address = f"/jobs/{job_id}/log"
    assert 'data-seen="0:"' in api.client.get(address).text
    attempt = api.claim(job_id)
    outputs.put_log(api.parts.store, job_id, attempt, f"first\n{HOSTILE}\nhal")
    first = api.client.get(address, params={"seen": NOTHING}).json()
    assert first["pieces"] == [{"attempt": attempt, "text": f"first\n{HOSTILE}\n", "follows": False}]
    assert not first["has_ended"]
    outputs.put_log(api.parts.store, job_id, attempt, f"first\n{HOSTILE}\nhalf\nmore\n")
    rest = api.client.get(address, params={"seen": first["seen"]}).json()
    assert rest["pieces"] == [{"attempt": attempt, "text": "half\nmore\n", "follows": True}]
    assert api.client.get(address, params={"seen": rest["seen"]}).json()["pieces"] == []
    page = api.client.get(address).text
    assert f'data-seen="{rest["seen"]}"' in page
    assert HOSTILE not in page
    assert (
        api.client.get(f"/jobs/job_{26 * '0'}/log?seen=1:", headers={"Accept": "application/json"}).status_code == 404
    )
