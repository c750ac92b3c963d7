"""A job's processes choose its class, its queue and the workers that take it."""

import pytest

from service.resource_classes import ResourceClass, class_of, parse_classes, served_by
from service.settings import Settings

CLASSES = parse_classes("small:1, large:8,huge:64")
SMALL, LARGE, HUGE = ResourceClass("small", 1, 1), ResourceClass("large", 2, 8), ResourceClass("huge", 9, 64)


def test_classes_begin_where_the_one_before_ends() -> None:
    assert list(CLASSES) == [SMALL, LARGE, HUGE]
    named = {processes: class_of(processes, CLASSES) for processes in (1, 2, 8, 9, 64, 65)}
    assert [one and one.name for one in named.values()] == ["small", "large", "large", "huge", "huge", None]


def test_a_worker_serves_the_classes_whose_queues_it_reads() -> None:
    assert served_by(["celery.huge", "celery.large", "attune.datasets"], CLASSES) == CLASSES[1:]
    assert served_by(["celery"], CLASSES) == ()


@pytest.mark.parametrize("text", ["small", "small:none", "a:2,b:2", "a:8,b:1", "a:1,a:2", "A b:1", "zero:0"])
def test_what_is_no_list_of_classes_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Settings(resource_classes=text)
