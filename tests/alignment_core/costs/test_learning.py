"""What a run shows of a machine, and the estimate of time against runs of the demo's model."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from alignment_core.costs.learning import learnt
from alignment_core.costs.rates import ANY_CPU, H100_HALF, Rate, corrected, rates_of_card
from alignment_core.costs.seconds import duration_of
from alignment_core.costs.work import Work
from benchmarks.durations import NUM_PAIRS, ratios, seconds_of, spec_of, work_in
from demo.assets import ASSETS

OFFLINE = Work(
    caching_places=800.0,
    sampling_tflop=0.0,
    scoring_places=0.0,
    training_tflop=6.0,
    training_launches=30.0,
    evaluating_tflop=9.0,
    saving_bytes=1e6,
)
ONLINE = replace(OFFLINE, sampling_tflop=4.0, scoring_places=2000.0)


def test_a_rate_is_work_over_time_and_the_images_of_the_report_are_drawn_while_it_is_evaluated() -> None:
    took = {"loading": 2.0, "caching": 4.0, "training": 3.0, "sampling": 2.0, "evaluating": 1.0, "uploading": 9.0}
    found = learnt(OFFLINE, took, ANY_CPU)
    assert found == {"loading": 0.5, "caching": 200.0, "evaluating": 3.0, "training": pytest.approx(2.0)}


def test_what_was_brief_teaches_nothing() -> None:
    known = {**ANY_CPU, **{phase: Rate(100, 100, 100, "jobs") for phase in ("loading", "training", "evaluating")}}
    assert learnt(OFFLINE, {"loading": 0.4, "training": 0.4, "sampling": 0.2, "evaluating": 0.2}, known) == {}


def test_what_was_brief_but_thought_to_be_long_teaches_that_it_is_not() -> None:
    assert learnt(OFFLINE, {"loading": 0.3, "caching": 0.1}, ANY_CPU) == {"loading": pytest.approx(1 / 0.3)}


def test_saving_a_small_adapter_says_nothing_of_the_disk() -> None:
    assert learnt(OFFLINE, {"saving": 0.8}, ANY_CPU) == {}
    assert learnt(replace(OFFLINE, saving_bytes=1e9), {"saving": 2.0}, ANY_CPU) == {"saving": 5e8}


def test_a_guess_is_moved_with_what_was_shown_of_a_phase_like_it() -> None:
    slow = {"training": Rate(0.02, 0.02, 0.02, "jobs"), "caching": Rate(8e4, 8e4, 8e4, "jobs")}
    found = corrected(ANY_CPU, slow)
    assert found["sampling"].expected == pytest.approx(
        ANY_CPU["sampling"].expected * 0.02 / ANY_CPU["training"].expected
    )
    assert found["scoring"].expected == pytest.approx(ANY_CPU["scoring"].expected * 8e4 / ANY_CPU["caching"].expected)
    assert all(one.low < one.expected < one.high for one in (found["sampling"], found["scoring"], found["evaluating"]))
    assert {found[phase].source for phase in ("sampling", "scoring", "evaluating")} == {"guess"}
    of_card = rates_of_card("NVIDIA H100", is_gpu=True, is_half=True)
    assert corrected(of_card, slow)["sampling"] == of_card["sampling"], "what a card was measured at stands"


def test_a_branch_trains_one_state_whose_forward_was_made_while_it_was_drawn(tmp_path: Path) -> None:
    def work(method: str, **training: int) -> Work:
        return work_in(
            spec_of("sd", {"method": {"type": method}, "training": {"steps": 10, **training}}, tmp_path), "sd"
        )

    pairs, branches, halves = (
        work("d3po"),
        work("tailorpo"),
        work("tailorpo", batch_size=4, gradient_accumulation_steps=2),
    )
    assert pairs.training_tflop == pytest.approx(3 * branches.training_tflop), "twice the states, and 3 passes for 2"
    assert halves.training_tflop == pytest.approx(2.5 / 2 * branches.training_tflop), (
        "one prediction is kept, the other made again"
    )
    assert halves.sampling_tflop == branches.sampling_tflop


def test_what_is_drawn_before_the_first_step_is_drawn_whole(tmp_path: Path) -> None:
    def drawn(steps: int) -> float:
        return work_in(
            spec_of("sd", {"method": {"type": "ddpo"}, "training": {"steps": steps}}, tmp_path), "sd"
        ).sampling_tflop

    assert drawn(1) == drawn(3) == pytest.approx(drawn(6) / 2), "24 transitions are three steps of eight"


def test_an_online_run_is_told_its_own_time_after_it_was_learnt_from() -> None:
    found = learnt(ONLINE, {"training": 100.0}, ANY_CPU)
    assert found.keys() == {"training", "sampling", "scoring"}
    new = corrected(ANY_CPU, {phase: Rate(rate, rate, rate, "jobs") for phase, rate in found.items()})
    phases = duration_of(ONLINE, new, None).phases
    assert sum(phases[one].expected for one in ("training", "sampling", "scoring")) == pytest.approx(100, rel=0.01)


def test_a_run_that_waited_for_its_kernels_says_nothing_of_larger_batches() -> None:
    known = {**ANY_CPU, "training": H100_HALF["training"]}
    assert "training" not in learnt(OFFLINE, {"training": 3.5}, known), "30 launches of 0.1 s"
    assert "training" in learnt(OFFLINE, {"training": 30.0}, known)


def test_a_measured_rate_keeps_the_least_time_of_a_small_batch() -> None:
    measured = {"training": Rate(150, 170, 190, "jobs")}
    found = corrected(rates_of_card("NVIDIA H100", is_gpu=True, is_half=True), measured)
    assert duration_of(OFFLINE, found, None).phases["training"].expected == pytest.approx(3.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
def test_a_run_takes_about_what_another_of_its_machine_has_taught(tmp_path: Path) -> None:
    """In CPU seconds, which other work on the machine leaves alone; the bounds are wide all the same."""
    pairs = tmp_path / "pairs.parquet"
    parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
    first, other = spec_of("sd", {}, pairs), spec_of("sd", {"adapter": {"type": "full"}}, pairs)
    found = learnt(work_in(first, "sd"), seconds_of(first, tmp_path / "first"), ANY_CPU)
    known = corrected(ANY_CPU, {phase: Rate(rate, rate, rate, "jobs") for phase, rate in found.items()})
    compared = ratios(duration_of(work_in(other, "sd"), known, None), seconds_of(other, tmp_path / "other"))
    assert 0.4 < compared["training"] < 2.5
    assert 0.4 < compared["evaluating"] < 2.5
