"""Datasets of the Hugging Face Hub at a pinned commit: their data files, and nothing that could be run."""

from pathlib import Path

from alignment_core.errors import DataError

TABLES = ("*.parquet", "*.arrow", "*.csv", "*.tsv", "*.jsonl", "*.json")
IMAGES = tuple(f"*.{ending}" for name in ("png", "jpg", "jpeg", "webp", "avif") for ending in (name, name.upper()))


def download_dataset(repo_id: str, revision: str, cache_dir: Path) -> Path:
    """A folder with the data files of the dataset at the commit; what is there already is not fetched again.

    The files are real ones and no links into a shared cache, since links that lead out of a dataset's folder are refused.
    Raises `DataError`: `dataset_not_found` for a dataset or commit that is not there or not open, `hub_unreachable`
    (retryable) when the Hub does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    folder = cache_dir / "hub-datasets" / repo_id.replace("/", "--") / revision
    shown = f"method.dataset {repo_id}@{revision[:12]}"
    done = folder.with_suffix(".complete")
    if done.exists():
        return folder
    try:
        snapshot_download(
            repo_id, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=[*TABLES, *IMAGES]
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise DataError(
            "dataset_not_found", f"{shown}: no such dataset or commit, or it is not open to this machine"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "hub_unreachable",
            f"{shown}: the Hugging Face Hub could not be reached, or did not answer as expected",
            category="system",
            retryable=True,
        ) from error
    done.touch()
    return folder
