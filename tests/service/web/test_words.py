"""Numbers, sizes and times as pages say them."""

import re
from pathlib import Path

import pytest

import service.web
from alignment_core.spec.counted import counted
from attune.tables import memory_of
from service.web.words import ahead, duration, gib, in_words, signed, size

TEMPLATES = Path(service.web.__file__).parent / "templates"
BY_HAND = re.compile(
    r"\}\}(?:</\w+>)? (?:[a-z-]+ )?(?:rows|pairs|prompts|seeds|jobs|images|pictures|questions|votes|people|steps|files|bytes|KiB|MiB|GiB)\b"
)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows"), (-1, "-1 rows")]
)
def test_one_is_no_plural(number: int, said: str):
    assert counted(number, "row") == said


def test_a_plural_of_its_own_is_told():
    assert (counted(1, "person", "people"), counted(2, "person", "people")) == ("1 person", "2 people")


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (2**20, "1.0 MiB"), (2**40, "1.0 TiB")],
)
def test_a_size_is_in_a_unit_of_which_there_is_a_whole_one(num_bytes: int, said: str):
    assert size(num_bytes) == said


def test_memory_of_a_small_model_is_no_fraction_of_a_gib():
    assert (gib(0.0148), gib(12.5), gib(None)) == ("15.2 MiB", "12.5 GiB", "")
    assert (memory_of(0.0148), memory_of(12.5)) == ("15.2 MiB", "12.50 GiB")


def test_who_is_next_has_nobody_ahead():
    assert (ahead(0), ahead(1200)) == ("next in line", "1,200 ahead")


def test_what_is_not_known_is_not_said():
    assert (size(None), duration(None), signed(None)) == ("", "", "")


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_no_template_writes_a_unit_or_a_plural_by_hand(template: Path):
    assert BY_HAND.findall(template.read_text()) == []
    assert BY_HAND.search("{{ one }} held-out prompts")


def test_an_event_is_told_in_words_and_cut_where_it_is_long():
    told = {"type": "x", "time": "2026", "phase": "saving", "step": 1200, "is_best": True, "rows": [1], "none": None}
    assert in_words(told) == "phase saving, step 1,200, is best yes"
    assert len(in_words({"message": "x" * 1000})) < 220
