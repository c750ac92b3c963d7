"""Datasets of the Hugging Face Hub at a pinned commit: their data files, and nothing that could be run."""

from pathlib import Path

from alignment_core.errors import DataError
from alignment_core.hub_errors import download_errors, hub_error

TABLES = ("*.parquet", "*.arrow", "*.csv", "*.tsv", "*.jsonl", "*.json")
IMAGES = tuple(f"*.{ending}" for name in ("png", "jpg", "jpeg", "webp", "avif") for ending in (name, name.upper()))


def download_dataset(repo_id: str, revision: str, cache_dir: Path) -> Path:
    """A folder with the data files of the dataset at the commit; what is there already is not fetched again.

    The files are real ones and no links into a shared cache, since links that lead out of a dataset's folder are refused.
    Raises `DataError`: `dataset_not_found` for a dataset or commit that is not there, `hub_access_denied` for one that is not
    open, `hub_unreachable` (retryable) when the Hub does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    folder = cache_dir / "hub-datasets" / repo_id.replace("/", "--") / revision
    done = folder.with_suffix(".complete")
    if done.exists():
        return folder
    wanted = [*TABLES, *IMAGES]
    try:
        files = HfApi().list_repo_files(repo_id, repo_type="dataset", revision=revision)
        snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=wanted)
    except download_errors() as error:
        what = f"method.dataset {repo_id}@{revision[:12]}"
        raise hub_error(DataError, what, "dataset_not_found", error) from error
    # without a network, half of what an earlier call left counts as a snapshot to the Hub's library
    if not all((folder / name).is_file() for name in filter_repo_objects(files, allow_patterns=wanted)):
        raise _broken_off(repo_id, revision)
    done.touch()
    return folder


def _broken_off(repo_id: str, revision: str) -> DataError:
    return DataError(
        "hub_unreachable",
        f"method.dataset {repo_id}@{revision[:12]}: the Hugging Face Hub broke off",
        category="system",
        retryable=True,
    )
