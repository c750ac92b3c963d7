"""From where a reward's weights are said to be to a local folder."""

from pathlib import Path
from typing import assert_never

from alignment_core.errors import ModelError
from alignment_core.hub_errors import download_errors, hub_error
from alignment_core.spec import CatalogSource, HubSource, LocalSource

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
_CONFIG_FILES = ("config.json", "preprocessor_config.json")


def fetch_folder(reward: str, source: CatalogSource | HubSource | LocalSource) -> Path:
    """The local folder of the weights of `reward`; a Hub repository is downloaded at its pinned commit.

    Raises `ModelError` when there is no such folder or the source is a name that only the service can resolve.
    """
    match source:
        case LocalSource():
            folder = Path(source.path)
            if not folder.is_dir():
                raise ModelError("reward_not_found", f"reward {reward!r}: expected a folder at {source.path!r}")
            return folder
        case HubSource():
            return _download(reward, source)
        case CatalogSource():
            raise ModelError(
                "reward_not_resolved",
                f"reward {reward!r}: {source.name!r} is a name of the service's catalog, and names are resolved by the "
                "service, not by a local run",
                hint="give the weights as a local folder",
            )
        case _:
            assert_never(source)


def _download(reward: str, source: HubSource) -> Path:
    from huggingface_hub import snapshot_download

    suffix = f".{source.variant}" if source.variant else ""
    weights = [
        f"model{suffix}.safetensors",
        f"model-?????-of-?????{suffix}.safetensors",
        f"model.safetensors.index{suffix}.json",
    ]
    try:
        path = snapshot_download(
            source.repo_id, revision=source.revision, allow_patterns=[*_CONFIG_FILES, *TOKENIZER_FILES, *weights]
        )
    except download_errors() as error:
        what = f"reward {reward!r}: {source.repo_id}@{source.revision[:12]}"
        raise hub_error(ModelError, what, "reward_not_found", error) from error
    return Path(path)
