"""What a run is made of, on a GPU: every method, resume, probes, guards, the report, exports, and a compiled step.

`ATTUNE_GPU_TESTS_ON_CPU=1 python -m pytest -m gpu tests/gpu/test_every_run.py` runs the same on a CPU.
"""

from pathlib import Path
from typing import Any

import pytest

from alignment_core import align
from alignment_core.checkpoints import folder_of
from alignment_core.events import (
    CompilingWeighed,
    EvaluationCompleted,
    Event,
    ExportCompleted,
    PrecisionMeasured,
    ProbeCompleted,
    ResultSelected,
    RunStarted,
    StepCompleted,
    WarningRaised,
)
from alignment_core.exports.export import export
from alignment_core.spec import JobSpec
from alignment_core.spec.exports import OF_A_LORA, OF_A_WHOLE_MODEL, ExportFormat
from tests.alignment_core.load.test_combinations import METHODS
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import UNJUDGED, tiny_spec
from tests.alignment_core.training.test_guarded_runs import ALWAYS
from tests.gpu.device import DEVICE, MARKS, PRECISIONS

pytestmark = MARKS

ADAPTERS: dict[str, dict[str, Any]] = {"lora": {"type": "lora", "rank": 2}, "full": {"type": "full"}}
JUDGED: dict[str, Any] = {
    "prompts": ["a red circle", "a blue square", "a green circle", "a red square"],
    "max_prompts": 2,
    "probe_prompts": 2,
    "every": 1,
    "rewards": [{"type": "brightness"}],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 160,
    "bootstrap_resamples": 200,
}


def spec_of(model: Path, pairs: Path, name: str = "diffusion_dpo", **changes: Any) -> JobSpec:
    """Two steps of a method, an iteration or two of an online one."""
    data = {} if "prompts" in METHODS[name] else {"dataset": {"type": "local", "path": str(pairs)}}
    training = {
        "steps": 2,
        "batch_size": 8 if name == "diffusion_kto" else 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        **changes.pop("training", {}),
    }
    whole = {"evaluation": UNJUDGED, "checkpoints": {"every": 1}, **changes}
    return tiny_spec(
        model, pairs, method={**METHODS[name], **data}, training=training, resources={"device": DEVICE}, **whole
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    name: str, adapter: str, model: Path, pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(model, pairs, name, adapter=ADAPTERS[adapter])
    events = list(align(spec, tmp_path / "whole", cache_dir=cache_dir))
    started, steps = events[0], of_type(events, StepCompleted)
    assert isinstance(started, RunStarted)
    assert started.device == DEVICE
    assert [step.step for step in steps] == [1, 2]
    assert "loss" in steps[0].metrics
    stop_after(spec, tmp_path / "cut", cache_dir, 1)
    list(align(spec, tmp_path / "cut", cache_dir=cache_dir))
    whole, cut = (folder_of(tmp_path / name / "checkpoints", 2) for name in ("whole", "cut"))
    assert same_weights(whole, cut)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_probes_choose_the_result_and_the_report_is_of_it(
    precision: str, model: Path, pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(model, pairs, evaluation=JUDGED, training={"precision": precision})
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    assert bool(of_type(events, PrecisionMeasured)) == (precision != "fp32")
    probes = of_type(events, ProbeCompleted)
    assert [probe.step for probe in probes] == [1, 2]
    assert all("brightness_gain" in probe.metrics for probe in probes)
    (result,), (evaluated,) = of_type(events, ResultSelected), of_type(events, EvaluationCompleted)
    assert result.selected_by == "held_out_reward"
    assert evaluated.step == result.step
    assert (tmp_path / evaluated.path).is_file()


def test_a_guard_ends_the_training(model: Path, pairs: Path, cache_dir: Path, tmp_path: Path) -> None:
    guards = {**ALWAYS, "on_violation": "stop"}
    spec = spec_of(model, pairs, guards=guards, training={"steps": 40})
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    (result,) = of_type(events, ResultSelected)
    assert result.stopped_by == "margin_saturation"
    assert result.last_step < 40
    assert "margin_saturation" in {event.code for event in of_type(events, WarningRaised)}


@pytest.fixture(scope="module")
def trained(model: Path, pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The last checkpoint of a run, by adapter."""
    found = {}
    for name, adapter in ADAPTERS.items():
        workdir = tmp_path_factory.mktemp(name)
        list(align(spec_of(model, pairs, adapter=adapter), workdir, cache_dir=cache_dir))
        found[name] = folder_of(workdir / "checkpoints", 2)
    return found


FORMATS: list[tuple[str, ExportFormat]] = [
    *[("lora", format) for format in OF_A_LORA],
    *[("full", format) for format in OF_A_WHOLE_MODEL],
]


@pytest.mark.parametrize(("adapter", "format"), FORMATS)
def test_what_was_trained_is_exported_in_every_format(
    adapter: str, format: ExportFormat, trained: dict[str, Path], tmp_path: Path
) -> None:
    *_, last = export(trained[adapter], tmp_path / "out", format)
    assert isinstance(last, ExportCompleted)
    assert any(file.path.endswith(".safetensors") for file in last.files)


@pytest.mark.skipif(
    DEVICE == "cpu", reason="a CPU's compiler takes minutes: tests/alignment_core/training/test_compiling.py"
)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_a_compiled_step_is_the_plain_one_to_rounding(
    graphs: str, adapter: str, model: Path, pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    found: dict[str, list[Event]] = {}
    for asked in ("on", "off"):
        training = {"precision": "fp32", "compile": asked, "cuda_graphs": graphs if asked == "on" else "off"}
        spec = spec_of(model, pairs, training=training, adapter=ADAPTERS[adapter])
        found[asked] = list(align(spec, tmp_path / asked, cache_dir=cache_dir))
    assert [one.is_compiled for one in of_type(found["on"], CompilingWeighed)] == [True]
    assert not {one.code for one in of_type(found["on"], WarningRaised)} & {
        "compile_unavailable",
        "cuda_graphs_unavailable",
    }
    losses = {
        asked: [step.metrics["loss"] for step in of_type(events, StepCompleted)] for asked, events in found.items()
    }
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-3)
