"""A job's processes choose its class, its queue and the workers that take it."""

import pytest

from service.resource_classes import ResourceClass, class_of, parse_classes, served_by
from service.settings import Settings

CLASSES = parse_classes("small:1, large:8,huge:64")
SMALL, LARGE, HUGE = ResourceClass("small", 1), ResourceClass("large", 8), ResourceClass("huge", 64)
BY_MEMORY = parse_classes("small:1@24GiB,big:1@80GiB,large:8@80GiB,wide:16@40GiB")


def test_classes_begin_where_the_one_before_ends() -> None:
    assert list(CLASSES) == [SMALL, LARGE, HUGE]
    named = {processes: class_of(processes, 500.0, CLASSES) for processes in (1, 2, 8, 9, 64, 65)}
    assert [one and one.name for one in named.values()] == ["small", "large", "large", "huge", "huge", None]


@pytest.mark.parametrize(
    ("processes", "gib", "expected"),
    [
        (1, 23.9, "small"), (1, 24.1, "big"), (2, 10.0, "large"), (8, 80.0, "large"), (9, 39.0, "wide"),
        (1, 80.1, None), (9, 41.0, None), (17, 1.0, None),
    ],
)  # fmt: skip
def test_a_job_is_of_the_first_class_that_has_room_for_it(processes: int, gib: float, expected: str | None) -> None:
    found = class_of(processes, gib, BY_MEMORY)
    assert (found and found.name) == expected


def test_what_nobody_has_estimated_waits_for_the_most_memory() -> None:
    named = [class_of(processes, None, BY_MEMORY) for processes in (1, 4, 9, 17)]
    assert [one and one.name for one in named] == ["big", "large", "wide", None]


def test_a_worker_serves_the_classes_whose_queues_it_reads() -> None:
    assert served_by(["celery.huge", "celery.large", "attune.datasets"], CLASSES) == CLASSES[1:]
    assert served_by(["celery"], CLASSES) == ()


@pytest.mark.parametrize(
    "text",
    [
        *("small", "small:none", "a:2,b:2", "a:8,b:1", "a:1,a:2", "A b:1", "zero:0"),
        *("a:1@80", "a:1@GiB", "a:1@0GiB", "a:1@nanGiB", "a:1,b:1@80GiB", "a:8@80GiB,b:8@24GiB"),
    ],
)
def test_what_is_no_list_of_classes_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Settings(resource_classes=text)
