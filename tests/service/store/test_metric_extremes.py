"""Curves that are thinned by their extremes: what stays was there, no spike is lost, and a block says what its rows say."""

import random
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import events, metric_extremes
from service.store.database import Store
from service.store.metrics import metrics
from service.store.models import Metric, MetricBlock
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.jobs import JobRecord
from tests.service.store.plans import sent_by
from tests.service.store.test_events import lose, step


def put(store: Store, job_id: str, figures: dict[int, dict[str, float | None]], *, blocks: bool) -> None:
    some = {"job_id": job_id, "project_id": PROJECT, "attempt": 1, "time": datetime.now(UTC), "split": "train"}
    with store.write() as session:
        session.execute(sa.insert(Metric), [{**some, "step": step, "figures": one} for step, one in figures.items()])
        for block in range(max(figures) // 64 if blocks else 0):
            metric_extremes.write_block(session, PROJECT, job_id, "train", block)


def wavering(count: int) -> dict[int, dict[str, float | None]]:
    numbers = random.Random(3)
    return {
        step: {"loss": numbers.random(), "margin": None if step % 7 == 0 else numbers.gauss(0, 1)}
        for step in range(1, count + 1)
    }


def curve(rows: Sequence[Any], name: str) -> list[tuple[int, float | None]]:
    return [(row.step, row.metrics[name]) for row in rows if name in row.metrics]


@pytest.mark.parametrize("max_points", [1, 2, 3, 4, 7, 20, 50, 300])
def test_what_stays_was_there_and_has_both_ends_and_both_extremes(store: Store, held: JobRecord, max_points: int):
    figures = wavering(1500)
    put(store, held.id, figures, blocks=True)
    rows = metrics(store, PROJECT, held.id, max_points=max_points, keep="extremes")
    assert [row.step for row in rows] == sorted({row.step for row in rows})
    for name in ("loss", "margin"):
        kept = curve(rows, name)
        assert len(kept) <= max_points
        assert all(figures[step][name] == value for step, value in kept)
        assert kept[-1] == (1500, figures[1500][name])
        assert max_points == 1 or kept[0] == (1, figures[1][name])
        told = [one[name] for one in figures.values() if one[name] is not None]
        if max_points >= 4:
            assert {min(told), max(told)} <= {value for _, value in kept}


@pytest.mark.parametrize(("from_step", "to_step"), [(None, None), (64, 3_000), (100, 2_175), (63, 3_071), (1, 64)])
def test_blocks_say_what_the_rows_say(store: Store, held: JobRecord, from_step: int | None, to_step: int | None):
    put(store, held.id, wavering(3_100), blocks=False)

    def read(max_points: int) -> Any:
        return metrics(
            store, PROJECT, held.id, from_step=from_step, to_step=to_step, max_points=max_points, keep="extremes"
        )

    sizes = (4, 9, 30, 60, 500)
    without = [read(max_points) for max_points in sizes]
    with store.write() as session:
        for block in (*range(10), *range(13, 48)):
            metric_extremes.write_block(session, PROJECT, held.id, "train", block)
    assert [read(max_points) for max_points in sizes] == without


def test_the_steps_of_a_run_leave_blocks_and_a_later_attempt_leaves_its_own(store: Store, held: JobRecord):
    def blocks() -> dict[int, Any]:
        with store.read() as session:
            return {row.block: row.extremes["loss"] for row in session.scalars(sa.select(MetricBlock))}

    events.record_events(store, held.id, 1, [step(number, loss=1 / number) for number in range(1, 150)])
    assert blocks() == {0: [63, 1 / 63, 1, 1.0], 1: [127, 1 / 127, 64, 1 / 64]}
    lose(store, held)
    events.record_events(store, held.id, 2, [step(number, loss=9.0) for number in range(100, 110)])
    assert blocks().keys() == {0}, "what a later attempt has begun to write anew is read from its rows"
    assert (
        max(value for _, value in curve(metrics(store, PROJECT, held.id, max_points=6, keep="extremes"), "loss")) == 9.0
    )  # pyright: ignore
    events.record_events(store, held.id, 2, [step(number, loss=9.0) for number in range(110, 128)])
    assert blocks()[1] == [99, 1 / 99, 100, 9.0]


@pytest.mark.slow
def test_a_single_spike_in_a_million_steps_survives_and_is_found_from_few_rows(store: Store, held: JobRecord):
    """The last tenth has no blocks yet, so that both ways of reading are seen."""
    is_sqlite = store.engine.dialect.name == "sqlite"
    as_json = "{}" if is_sqlite else "CAST({} AS json)"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    figures = as_json.format("""CASE i WHEN 765432 THEN '{"loss": 99.0}' ELSE '{"loss": 0.5}' END""")
    extremes = as_json.format(
        """'{"loss": [' || (64 * i) || ', 0.5, ' || CASE i WHEN 11959 THEN '765432, 99.0' ELSE (64 * i) || ', 0.5' END || ']}'"""
    )
    whose = f"'{held.id}', 'train', i, '{PROJECT}'"
    with store.write() as session:
        for statement in (
            "INSERT INTO metrics (job_id, split, step, project_id, attempt, time, figures) "
            f"{numbers.format(999_999)} SELECT {whose}, 1, '2026-11-20 09:15:00', {figures} FROM n",
            "INSERT INTO metric_blocks (job_id, split, block, project_id, extremes) "
            f"{numbers.format(14_000)} SELECT {whose}, {extremes} FROM n",
        ):
            session.connection().exec_driver_sql(statement)
    sent = sent_by(store)
    tracemalloc.start()
    rows = metrics(store, PROJECT, held.id, max_points=1000, keep="extremes")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (765_432, 99.0) in curve(rows, "loss")
    assert (rows[0].step, rows[-1].step, len(rows) <= 1000) == (0, 999_999, True)
    assert most < 20e6, "what is read is forgotten"
    read = [statement for statement, _ in sent if "metrics.figures" in statement]
    assert len(read) == 5, "of this split both ends and the last tenth; the two others are empty"
