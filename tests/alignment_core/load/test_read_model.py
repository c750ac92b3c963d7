"""A process reads what can be known of a model, and why a run would refuse it, without loading it."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment_core.errors import ModelError
from alignment_core.load.model import load_model
from alignment_core.load.read_model import read_model
from alignment_core.model_files import ModelReport, read_model_files
from alignment_core.spec import HubSource, LocalSource
from alignment_core.spec.families import FAMILIES, FamilyName, served
from tests.alignment_core.families.tiny_models import TINY
from tests.servers.hub import COMMIT, REPO, hub_of

DEMO_MODEL = Path(__file__).parents[3] / "demo" / "assets" / "model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(DEMO_MODEL, tmp_path / "model")


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def report_of(folder: Path) -> ModelReport:
    return read_model(LocalSource(path=str(folder)))


def test_a_model_that_would_be_trained_has_no_problem() -> None:
    report = report_of(DEMO_MODEL)
    assert report.problem is None
    assert report.unfit_steps == frozenset({1000}), "its offset of 1 leads past the last timestep"
    assert report.stamp is not None


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("unet/config.json", {"in_channels": 9}, "in_channels is 9; expected 4"),
        ("unet/config.json", {"out_channels": 8}, "out_channels is 8; expected 4"),
        ("unet/config.json", {"cross_attention_dim": 2048}, "cross_attention_dim is 2048; expected"),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "StableDiffusionInpaintPipeline"),
        ("model_index.json", {"unet": ["my_code", "Net"]}, "expected a class of diffusers"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
    ],
)
def test_parts_that_do_not_fit_are_told_with_the_file_and_without_the_folder(
    model: Path, file: str, changes: dict[str, object], says: str
) -> None:
    rewrite(model / file, **changes)
    problem = report_of(model).problem
    assert problem is not None
    assert problem.message.startswith(file)
    assert says in problem.message


def test_numbers_of_steps_without_a_grid_are_known(model: Path) -> None:
    rewrite(model / "scheduler" / "scheduler_config.json", timestep_spacing="trailing")
    assert 61 in report_of(model).unfit_steps
    assert 50 not in report_of(model).unfit_steps


def test_a_last_step_without_noise_is_known(model: Path) -> None:
    assert not report_of(model).last_step_is_silent
    rewrite(model / "scheduler" / "scheduler_config.json", set_alpha_to_one=True)
    assert report_of(model).last_step_is_silent


@pytest.mark.parametrize("family", served())
def test_every_family_that_is_served_is_checked(family: FamilyName, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": FAMILIES[family].pipeline_class}))
    for part in FAMILIES[family].weighed:
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(b"")
    problem = report_of(tmp_path).problem
    assert problem is not None
    assert problem.code in ("model_unsupported", "model_invalid")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a diffusers folder"):
        report_of(tmp_path / "nowhere")


@pytest.mark.slow  # a process of its own, as the worker's test of the same has one
def test_of_a_model_of_the_hub_the_headers_of_its_weights_are_enough(tmp_path: Path) -> None:
    source = HubSource(repo_id=REPO, revision=COMMIT).model_dump_json()
    with hub_of(DEMO_MODEL) as (address, downloads):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "alignment_core", "model", source],
            env={**os.environ, **environment},
            capture_output=True,
            check=True,
        )
    report = ModelReport.model_validate_json(done.stdout.splitlines()[-1])
    expected = read_model(LocalSource(path=str(DEMO_MODEL)))
    assert report.problem is None
    assert report.model_copy(update={"stamp": expected.stamp}) == expected
    largest = (DEMO_MODEL / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert max(size for _, size in downloads) < largest / 4


@pytest.mark.parametrize("name", ["sd", "sdxl_v", "sd3", "flux", "flux_schnell"])
def test_the_steps_that_are_silent_at_an_eta_are_those_that_a_run_does_not_train(name: str, tmp_path: Path) -> None:
    folder = TINY[name](tmp_path)
    source, dtype = LocalSource(path=str(folder)), torch.float32
    path = load_model(source, device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype).path
    report = read_model(source)
    assert report.problem is None
    for num_steps, eta in itertools.product((2, 7, 20), (1.0, 0.1, 0.01, 0.002)):
        silent = set(range(num_steps)) - set(path.grid(num_steps, eta).trainable)
        assert report.silent_steps(num_steps, eta) == silent, (num_steps, eta)


def without(file: Path, *names: str, **others: torch.Tensor) -> None:
    tensors = {name: value for name, value in load_file(file).items() if name not in names}
    save_file(tensors | others, file)


UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_weight_that_is_missing_or_of_another_shape_is_known_by_the_headers(model: Path) -> None:
    without(model / UNET, "conv_in.weight")
    missing = report_of(model).problem
    assert missing is not None
    assert (missing.code, "the weight 'conv_in.weight'" in missing.message) == ("model_invalid", True)
    without(model / UNET, **{"conv_in.weight": torch.zeros(1, 4, 3, 3)})
    misshapen = report_of(model).problem
    assert misshapen is not None
    assert "'conv_in.weight' has the shape [1, 4, 3, 3]" in misshapen.message


def test_of_files_with_names_that_the_library_translates_nothing_is_said(model: Path) -> None:
    vae = model / "vae" / "diffusion_pytorch_model.safetensors"
    name = next(iter(load_file(vae)))
    without(vae, name, **{"of_old": load_file(vae)[name]})
    assert report_of(model).problem is None


@pytest.mark.parametrize(("name", "unit"), [("sd", None), ("sd3", 4), ("flux", 4)])
def test_a_side_is_a_multiple_of_what_the_denoiser_takes_together(name: str, unit: int | None, tmp_path: Path) -> None:
    folder = TINY[name](tmp_path)
    assert read_model_files(folder).resolution_unit == unit
    if unit is not None:
        source, dtype = LocalSource(path=str(folder)), torch.float32
        family = load_model(source, device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype)
        with pytest.raises(ModelError, match=f"multiples of {unit}"):
            family.latent_shape(8 * unit + unit // 2)
