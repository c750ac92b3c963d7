"""What can be known of a model before it is loaded: read once by a process of the worker's, and remembered.

Of the Hub's models the configs are fetched, and of their weights the headers alone.
"""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment_core.diffusion.formulas import ddim_timesteps
from alignment_core.diffusion.path import SIGMA_FLOOR
from alignment_core.errors import ModelError
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.single_file import write_headers
from alignment_core.families.source import WEIGHED, ModelFolder, check_pipeline_folder, only_variant
from alignment_core.hub_errors import download_errors, hub_error
from alignment_core.load.model import check_headers, check_model, path_of
from alignment_core.model_files import ModelProblem, ModelReport, read_model_files, stamp_of
from alignment_core.spec import HubSource, LocalSource, SingleFileSource
from alignment_core.spec.families import FAMILIES

MOST_SAMPLING_STEPS = 1000
MOST_STEPS_WITH_ETA = 100
SILENT = 10.0  # what stands for an eta that there is not: `eta` is at most 1


ModelFiles = HubSource | LocalSource | SingleFileSource


def read_model(source: ModelFiles) -> ModelReport:
    """What the files say of the model, and why a run would refuse it, if it would.

    Raises `ModelError` where they cannot be read: there is no such folder, or the Hub does not answer.
    """
    match source:
        case LocalSource(path=path):
            return _report(ModelFolder(Path(path), only_variant(Path(path))), check_headers)
        case HubSource():
            with tempfile.TemporaryDirectory() as folder:
                _fetch_headers(source, Path(folder))
                return _report(ModelFolder(Path(folder), source.variant), check_headers)
        case SingleFileSource(path=path, config=config):
            return _report_of_file(Path(path), None if config is None else Path(config))


def _report_of_file(file: Path, config: Path | None) -> ModelReport:
    """That of the folder which it would be unpacked to; what a file of another kind is, is its problem."""
    stamp = stamp_of(file)
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_headers(file, config, Path(folder))
            found = ModelFolder(Path(folder), None)
            return _report(found, lambda _: None).model_copy(update={"stamp": stamp})
    except ModelError as error:
        if error.code == "model_not_found":
            raise
        message = error.message.replace(f"{file.parent}/", "")  # where the operator keeps it is nobody's business
        return ModelReport(problem=ModelProblem(code=error.code, message=message), stamp=stamp)


def _report(folder: ModelFolder, check_files: Callable[[ModelFolder], None]) -> ModelReport:
    if not (folder.path / "model_index.json").is_file():
        raise ModelError("model_not_found", f"{folder.path}: expected a diffusers folder with a model_index.json")
    report = read_model_files(folder.path).model_copy(update={"stamp": stamp_of(folder.path)})
    try:
        check_pipeline_folder(folder)
        check_model(folder)
        check_files(folder)
    except ModelError as error:
        message = error.message.replace(f"{folder.path}/", "")
        return report.model_copy(update={"problem": ModelProblem(code=error.code, message=message)})
    report = report.model_copy(update={"least_eta": _least_eta(folder, report)})
    if FAMILIES[folder.family].is_flow:
        return report
    return report.model_copy(update=_of_betas(folder))


def _least_eta(folder: ModelFolder, report: ModelReport) -> dict[int, tuple[float, ...]]:
    """A step's noise is eta times what it is at 1, on a schedule of betas and in flow matching alike."""
    path = path_of(folder, report.resolution or FAMILIES[folder.family].resolution)
    found: dict[int, tuple[float, ...]] = {}
    for num_steps in range(1, min(path.num_timesteps, MOST_STEPS_WITH_ETA) + 1):
        try:
            noise = path.grid(num_steps, 1.0).sigma_t.tolist()
        except ValueError:
            continue
        found[num_steps] = tuple(_rounded_down(SIGMA_FLOOR / max(one, SIGMA_FLOOR / SILENT)) for one in noise)
    return found


def _rounded_down(value: float) -> float:
    """To five digits, and no higher than the value: a step that a run trains is not refused."""
    return float(f"{value * (1 - 1e-4):.5g}")


def _of_betas(folder: ModelFolder) -> dict[str, Any]:
    """What follows from a schedule of betas: steps without a grid, and whether the last one is without noise."""
    schedule = read_schedule(folder)
    config, num = schedule.config, len(schedule.alphas_cumprod)
    steps = range(1, min(num, MOST_SAMPLING_STEPS) + 1)
    spacing, offset = config["timestep_spacing"], config["steps_offset"]
    return {
        "unfit_steps": frozenset(one for one in steps if not _fits(num, one, spacing, offset)),
        "last_step_is_silent": float(schedule.final_alpha_cumprod) == 1.0,
    }


def _fits(num_timesteps: int, num_steps: int, spacing: Any, offset: int) -> bool:
    try:
        ddim_timesteps(num_timesteps, num_steps, spacing=spacing, offset=offset)
    except ValueError:
        return False
    return True


def _fetch_headers(source: HubSource, folder: Path) -> None:
    """A folder of the repository's configs, and of its safetensors files as far as their headers go."""
    from huggingface_hub import HfApi, hf_hub_download

    what = f"the model {source.repo_id}@{source.revision[:12]}"
    try:
        api = HfApi()
        for name in filter(_is_read, api.list_repo_files(source.repo_id, revision=source.revision)):
            if name.endswith(".json"):
                fetched = hf_hub_download(source.repo_id, name, revision=source.revision)
                _write(folder / name, Path(fetched).read_bytes())
            else:
                tensors = api.parse_safetensors_file_metadata(source.repo_id, name, revision=source.revision).tensors
                shapes = {key: {"dtype": one.dtype, "shape": one.shape} for key, one in tensors.items()}
                header = json.dumps(shapes).encode()
                _write(folder / name, struct.pack("<Q", len(header)) + header)
    except download_errors() as error:
        raise hub_error(ModelError, what, "model_not_found", error) from error
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            "model_not_found", f"{what}: the repository has no model_index.json: it is no diffusers folder"
        )


def _is_read(name: str) -> bool:
    """Whether it is one of the few files of a repository that say something of the model."""
    path = Path(name)
    if path.suffix == ".safetensors":
        return path.parent.as_posix() in WEIGHED
    parts = (*WEIGHED, "scheduler")
    is_config = path.parent.as_posix() in parts and path.name in ("config.json", "scheduler_config.json")
    return name == "model_index.json" or is_config


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
