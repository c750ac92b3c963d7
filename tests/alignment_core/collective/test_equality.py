"""Two processes with half the batch each are one process: steps, checkpoints, validation, probes and the report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment_core.checkpoints import complete, read_manifest
from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.two import Done, farthest, in_one, in_two, in_twos, said_by_second
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.tiny import tiny_spec
from tests.alignment_core.tiny_flux import save_tiny_flux

ROUNDING = 2e-5  # of weights that Adam moved by about 6e-3
TRAINING = {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
PROVED = {
    "prompts": ["a red circle", "a blue square", "a green circle", "a red square", "a blue circle"],
    "rewards": [{"type": "brightness"}, {"type": "colorfulness"}],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "bootstrap_resamples": 200,
    "seeds_per_prompt": 2,
    "batch_size": 2,
    "max_prompts": 3,
    "every": 3,
    "probe_prompts": 2,
}


def proved_spec(model: Path, pairs: Path, **changes: Any) -> JobSpec:
    """With everything that a run measures: validation, probes that choose the best, a report of an odd number of batches."""
    training = {**TRAINING, "validation_fraction": 0.4, "validate_every": 3}
    return tiny_spec(model, pairs, **{"training": training, "evaluation": PROVED, **changes})


def specs_of(model: Path, flux: Path, pairs: Path) -> dict[str, JobSpec]:
    return {
        "flux": proved_spec(flux, pairs),
        "dpo": proved_spec(model, pairs),
        "d3po": online_spec(model, METHODS["d3po"]),
        "sharded": proved_spec(model, pairs, adapter={"type": "full"}, reference={"type": "ema", "alpha": 0.5}),
    }


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def two(
    pair: Pair, tiny_model: Path, flux: Path, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    """With a cache of their own, which they have to fill."""
    in_shares = ("sharded", "flux")
    specs = {
        name: in_twos(spec, strategy="fsdp2" if name in in_shares else "ddp")
        for name, spec in specs_of(tiny_model, flux, tiny_pairs).items()
    }
    return in_two(pair, specs, tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("cache"))


def test_each_process_encodes_its_share_of_the_images_and_prompts(two: dict[str, Done]) -> None:
    first, second = (encoded(done) for done in (two["dpo"], said_by_second(two["dpo"])))
    images, prompts = 2 * 12, 6 + 1  # and that of nothing
    assert first + second == images + prompts
    assert abs(first - second) <= 4
    assert encoded(two["sharded"]) == 0  # the run after it has the same data


def encoded(done: Done) -> int:
    """How much a process encoded itself: what was not cached when it came to it."""
    ends = [event for event in done.of_type("phase_progressed") if event["phase"] == "caching"]
    return sum(event["total"] - event["cached"] for event in ends if event["done"] == event["total"])


@pytest.mark.parametrize("name", ["dpo", "d3po", "sharded", "flux"])
def test_two_processes_are_one(
    name: str, two: dict[str, Done], tiny_model: Path, flux: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one, done = in_one(specs_of(tiny_model, flux, tiny_pairs)[name], tmp_path, cache_dir), two[name]
    assert done.events[0]["examples_per_step"] == one.events[0]["examples_per_step"] == 4
    assert done.metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
    assert farthest(done.checkpoint(6), one.checkpoint(6)) < ROUNDING
    assert [read_manifest(folder).step for folder in complete(done.workdir / "checkpoints")] == [
        read_manifest(folder).step for folder in complete(one.workdir / "checkpoints")
    ]
    assert done.steps_of("probe_completed", "metrics") == pytest.approx(
        one.steps_of("probe_completed", "metrics"), rel=1e-3, abs=1e-4
    )
    assert done.steps_of("validation_completed", "metrics") == pytest.approx(
        one.steps_of("validation_completed", "metrics"), rel=2e-3, abs=1e-4
    )
    assert_same_report(done.report, one.report)


def assert_same_report(two: dict[str, Any], one: dict[str, Any]) -> None:
    """Every score that the figures are made of, the initial model's to the bit; a gain near 0 may win by a rounded pixel."""
    for side, rounding in (("base", 0.0), ("policy", 1e-3)):
        mine, theirs = ([image[side] for image in report["images"]] for report in (two, one))
        assert len(mine) == len(theirs) > 0
        for scores, expected in zip(mine, theirs, strict=True):
            assert scores == pytest.approx(expected, rel=rounding, abs=rounding)
    for name in ("diversity", "drift"):
        assert list(figures(two[name])) == pytest.approx(list(figures(one[name])), rel=0.02, abs=2e-3)


def figures(value: Any) -> Iterator[float]:
    """The numbers in a JSON value, in order."""
    match value:
        case dict():
            for part in value.values():
                yield from figures(part)
        case list():
            for part in value:
                yield from figures(part)
        case bool():
            pass
        case int() | float():
            yield value
        case _:
            pass


def test_both_processes_see_the_same_run_to_the_bit(two: dict[str, Done]) -> None:
    for done in two.values():
        second = said_by_second(done)
        for kind in ("step_completed", "probe_completed", "validation_completed", "result_selected"):
            mine, theirs = ([without_clock(event) for event in run.of_type(kind)] for run in (done, second))
            assert mine == theirs


def without_clock(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "time" and not name.endswith("_seconds")}


OFFLINE: dict[str, dict[str, Any]] = {
    "diffusion_dpo": {"beta": 500.0},
    "mapo": {},
    "diffusion_kto": {"beta": 500.0},
}


def offline_spec(name: str, adapter: str, model: Path, pairs: Path) -> JobSpec:
    method = {"type": name, "dataset": {"type": "local", "path": str(pairs)}, **OFFLINE[name]}
    batch = {"batch_size": 16, "gradient_accumulation_steps": 1} if name == "diffusion_kto" else {}
    adapted = {"type": "full"} if adapter == "full" else {"type": "lora", "rank": 2}
    training = {**TRAINING, **batch, "steps": 4, "validation_fraction": 0.2}
    return tiny_spec(model, pairs, method=method, adapter=adapted, training=training)


CASES = [
    *((name, adapter, "ddp") for name in OFFLINE for adapter in ("lora", "full")),
    *((name, adapter, "fsdp2") for name in ("mapo", "diffusion_kto") for adapter in ("lora", "full")),
]


@pytest.fixture(scope="module")
def offline(
    pair: Pair, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    specs = {
        "-".join((name, adapter, strategy)): in_twos(
            offline_spec(name, adapter, tiny_model, tiny_pairs), strategy=strategy
        )
        for name, adapter, strategy in CASES
    }
    return in_two(pair, specs, tmp_path_factory.mktemp("offline"), cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "adapter", "strategy"), CASES)
def test_every_offline_method_takes_the_steps_of_one_process(
    name: str,
    adapter: str,
    strategy: str,
    offline: dict[str, Done],
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    done = offline["-".join((name, adapter, strategy))]
    one = in_one(offline_spec(name, adapter, tiny_model, tiny_pairs), tmp_path, cache_dir)
    assert done.metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
    assert farthest(done.checkpoint(4), one.checkpoint(4)) < ROUNDING
