"""A run whose prompts are in a file is the run whose prompts are in its spec."""

from pathlib import Path

import pytest
import torch

from alignment_core import AlignmentError, align
from alignment_core.checkpoints import folder_of
from alignment_core.events import EvaluationCompleted, RunStarted, StepCompleted, WarningRaised
from alignment_core.spec import JobSpec, sha256_of_json
from alignment_core.spec.places import Sources
from alignment_core.spec.prompts import LocalPrompts, PromptSetSource
from tests.alignment_core.rollouts.test_online import METHODS, PROMPTS, online_spec
from tests.alignment_core.test_alignment import of_type, same_weights
from tests.alignment_core.tiny import EVALUATION

HELD_OUT = ["a red circle", "a blue square"]
TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}


def spec(model: Path, prompts: object, held_out: object) -> JobSpec:
    evaluation = {**EVALUATION, "prompts": held_out, "seeds_per_prompt": 1}
    return online_spec(model, {**METHODS["ddpo"], "prompts": prompts}, training=TRAINING, evaluation=evaluation)


def write(path: Path, prompts: list[str]) -> Path:
    path.write_text("\n".join(prompts))
    return path


def test_the_numbers_are_those_of_the_same_prompts_in_the_spec(tiny_model: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    listed = list(align(spec(tiny_model, PROMPTS, HELD_OUT), tmp_path / "listed"))
    training = write(tmp_path / "training.txt", [*PROMPTS, "", PROMPTS[0]])
    held_out = PromptSetSource(id="ps_" + "1" * 26, sha256=sha256_of_json(HELD_OUT), count=2)
    asked = spec(tiny_model, {"type": "local", "path": str(training)}, held_out.model_dump())
    place = LocalPrompts(path=str(write(tmp_path / "held_out.txt", HELD_OUT)))
    filed = list(align(asked, tmp_path / "filed", sources=Sources(prompt_sets={held_out.id: place})))

    of_listed, of_filed = of_type(listed, StepCompleted), of_type(filed, StepCompleted)
    assert [event.metrics["loss"] for event in of_listed] == [event.metrics["loss"] for event in of_filed]
    folders = [folder_of(tmp_path / name / "checkpoints", 2) for name in ("listed", "filed")]
    assert same_weights(*folders)
    reports = [of_type(events, EvaluationCompleted)[0].report for events in (listed, filed)]
    assert reports[0]["rewards"] == reports[1]["rewards"]
    assert reports[0]["dataset_sha256"] == reports[1]["dataset_sha256"] == sha256_of_json(PROMPTS)
    (warning,) = (one for one in of_type(filed, WarningRaised) if one.code == "prompts_left_out")
    assert warning.message.startswith("method.prompts: 1 repeat (rows 5) and 1 empty row (4) left out, 3 prompts")
    assert of_type(filed, RunStarted)[0].spec_sha256 == asked.sha256()


def test_other_prompts_than_the_spec_says_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.txt", ["a", "b"])
    source = {"type": "local", "path": str(path), "sha256": "0" * 64}
    with pytest.raises(AlignmentError, match="holds other prompts than the spec says") as error:
        list(align(spec(tmp_path / "no-model", source, HELD_OUT), tmp_path / "work"))
    assert error.value.code == "prompts_altered"
    path.write_text("a\nb\0")
    with pytest.raises(AlignmentError, match=r"method.prompts: prompts.txt: row 2: holds the character NUL"):
        list(align(spec(tmp_path / "no-model", source, HELD_OUT), tmp_path / "work"))
    with pytest.raises(AlignmentError, match="is known to a service alone"):
        list(align(spec(tmp_path / "no-model", "ps_" + "1" * 26, HELD_OUT), tmp_path / "work"))


def test_a_spec_with_a_list_keeps_its_hash_and_one_with_a_set_has_that_of_its_prompts(tiny_model: Path) -> None:
    def named(sha256: str) -> str:
        source = {"type": "prompt_set", "id": "ps_" + "1" * 26, "sha256": sha256, "count": 2}
        return spec(tiny_model, source, HELD_OUT).sha256()

    assert named("0" * 64) == named("0" * 64) != named("1" * 64)
