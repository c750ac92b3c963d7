"""What decides a reward's scores, as one name: its type and settings, the hash of its weights, and what computes it.

Two rewards of one name give the same score for the same batch; a change of anything that might change the last bit gives
another name.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from alignment_core import rewards
from alignment_core.families.file_hashes import FileHashes
from alignment_core.spec import (
    CatalogSource,
    HubSource,
    LocalSource,
    RemoteReward,
    RewardSpec,
    WeightedSumReward,
    sha256_of_json,
)
from alignment_core.versions import versions

READ_OF_A_FOLDER = (".safetensors", ".json", ".txt")

Role = Literal["score", "prompt_following"]


def score_name(spec: RewardSpec, role: Role, device: torch.device, hashes: FileHashes) -> str | None:
    """The name; None for a reward that is not remembered, a server of somebody's that does not say its version."""
    said = _said(spec, hashes)
    if said is None:
        return None
    return sha256_of_json({"reward": said, "role": role, "computed": _computed(device), "versions": versions()})


def reward_sha256(spec: RewardSpec, role: Role, hashes: FileHashes) -> str:
    """What a reward is known by in reports: its type and settings and the hash of its weights, wherever it computes.

    A server that does not say its version is known by its address alone.
    """
    unsaid = {"type": spec.type, "url": spec.url} if isinstance(spec, RemoteReward) else None
    return sha256_of_json({"reward": _said(spec, hashes) or unsaid, "role": role})


def _said(spec: RewardSpec, hashes: FileHashes) -> dict[str, Any] | None:
    """What the spec says, with the content of folders in place of where they are; what it is called is no part of it."""
    match spec:
        case RemoteReward(url=url, version=version):
            return None if version is None else {"type": spec.type, "url": url, "version": version}
        case WeightedSumReward(parts=parts):
            said = [_said(part.reward, hashes) for part in parts]
            weighted = list(zip((part.weight for part in parts), said, strict=True))
            return None if None in said else {"type": spec.type, "parts": weighted}
        case _:
            fields = {field: getattr(spec, field) for field in type(spec).model_fields if field != "name"}
            return {field: _content(value, hashes) for field, value in fields.items()}


def _content(value: Any, hashes: FileHashes) -> Any:
    match value:
        case LocalSource(path=path):
            return _hash_of_folder(Path(path), hashes)
        case HubSource() | CatalogSource():
            return value.model_dump(mode="json")  # a commit is a hash
        case _:
            return value


def _hash_of_folder(folder: Path, hashes: FileHashes) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in READ_OF_A_FOLDER and path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashes.of(path))
    return digest.hexdigest()


def _computed(device: torch.device) -> dict[str, Any]:
    is_gpu, backends = device.type == "cuda", torch.backends
    return {
        "code": _code(),
        "device": torch.cuda.get_device_name(device) if is_gpu else device.type,
        "threads": None if is_gpu else torch.get_num_threads(),
        "matmul": backends.cuda.matmul.fp32_precision if is_gpu else backends.mkldnn.matmul.fp32_precision,
        "conv": backends.cudnn.conv.fp32_precision if is_gpu else backends.mkldnn.conv.fp32_precision,
    }


@cache
def _code() -> str:
    """Hash of the code of all rewards: a formula may change within a version."""
    digest = hashlib.sha256()
    for path in sorted(Path(next(iter(rewards.__path__))).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
