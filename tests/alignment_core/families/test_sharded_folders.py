"""Folders whose weights are in several files, as large models are given out, in half precision beside or alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from alignment_core.load.model import load_model
from alignment_core.load.read_model import read_model
from alignment_core.spec import LocalSource
from alignment_core.spec.families import FAMILIES, FamilyName, served
from tests.alignment_core.families.tiny_models import TINY


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("family", served())
def test_weights_in_shards_are_read_as_those_of_one_file(
    family: FamilyName, variant: str | None, tmp_path: Path
) -> None:
    whole, denoiser = TINY[family](tmp_path / "whole"), FAMILIES[family].denoiser
    sharded = shutil.copytree(whole, tmp_path / "sharded")
    shutil.rmtree(sharded / denoiser)
    pipeline = DiffusionPipeline.from_pretrained(whole, **absent_in(whole))
    getattr(pipeline, denoiser).save_pretrained(sharded / denoiser, max_shard_size="20KB", variant=variant)
    assert len(list((sharded / denoiser).glob("*-of-*.safetensors"))) > 1
    assert read_model(LocalSource(path=str(sharded))).problem is None
    one, several = (denoiser_of(folder) for folder in (whole, sharded))
    assert one.keys() == several.keys()
    assert all(torch.equal(one[name], several[name]) for name in one)


def denoiser_of(folder: Path) -> dict[str, torch.Tensor]:
    dtype, source = torch.float32, LocalSource(path=str(folder))
    family = load_model(source, device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype)
    return family.denoiser.state_dict()


def absent_in(folder: Path) -> dict[str, None]:
    index = json.loads((folder / "model_index.json").read_text())
    return {name: None for name, entry in index.items() if entry == [None, None]}
