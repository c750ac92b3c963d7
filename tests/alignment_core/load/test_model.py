"""One list says which families are trained: what it offers is what the library loads, and nothing else is."""

import json
from pathlib import Path

import pytest
import torch

from alignment_core.errors import ModelError
from alignment_core.families.source import ModelFolder, check_pipeline_folder
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from alignment_core.spec.families import FAMILIES, FamilyName, family_of, served


def bare_folder(folder: Path, pipeline_class: str, *parts: str) -> Path:
    """A folder of this class whose parts have files of the right names and nothing in them."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline_class}))
    for part in parts:
        (folder / part).mkdir()
        (folder / part / "model.safetensors").write_bytes(b"")
    return folder


def refusal(folder: Path) -> ModelError:
    cpu, dtype = torch.device("cpu"), torch.float32
    with pytest.raises(ModelError) as caught:
        load_model(LocalSource(path=str(folder)), device=cpu, frozen_dtype=dtype, denoiser_dtype=dtype)
    return caught.value


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_what_the_table_serves_has_a_loader(family: FamilyName, tmp_path: Path) -> None:
    facts = FAMILIES[family]
    error = refusal(bare_folder(tmp_path / "model", facts.pipeline_class, *facts.weighed))
    assert ("not trained here" in str(error)) == (not facts.is_served)


@pytest.mark.parametrize("pipeline_class", ["StableDiffusionInpaintPipeline", "KandinskyPipeline", "", None, ["a"]])
def test_a_pipeline_of_no_family_is_refused_with_what_is_trained(pipeline_class: object, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline_class}))
    error = refusal(tmp_path)
    assert error.code == "model_unsupported"
    assert repr(pipeline_class) in str(error)
    assert all(FAMILIES[name].pipeline_class in str(error) for name in served())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_families_have_one_class(family: FamilyName) -> None:
    assert family_of(FAMILIES[family].pipeline_class) == family


@pytest.mark.parametrize("part", FAMILIES["sd"].weighed)
def test_a_folder_without_weights_of_a_part_is_refused(part: str, tmp_path: Path) -> None:
    others = [other for other in FAMILIES["sd"].weighed if other != part]
    folder = bare_folder(tmp_path / "model", "StableDiffusionPipeline", *others)
    with pytest.raises(ModelError, match=rf"model/{part}: expected weights as \.safetensors"):
        check_pipeline_folder(ModelFolder(folder, None))
