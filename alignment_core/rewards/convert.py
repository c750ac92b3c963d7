"""Published reward weights that exist only as a pickle, made into a folder of safetensors that a reward loads.

    python -m alignment_core.rewards.convert hpsv2.1 HPS_v2.1_compressed.pt --tokenizer CLIP_H --out hps-v2.1

The file is read with `weights_only=True`, which builds tensors and plain containers and runs nothing. No other part of
Attune reads a pickle. `docs/rewards.md` says where the files are published.
"""

import argparse
import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from alignment_core.errors import ModelError
from alignment_core.rewards.affine import collapse
from alignment_core.rewards.image_reward import BlipShape, ImageRewardNetwork
from alignment_core.rewards.key_maps import clip_from_open_clip, image_reward_from_blip
from alignment_core.rewards.source import TOKENIZER_FILES
from alignment_core.rewards.tensors import check_tensors

Published = Literal["hpsv2", "hpsv2.1", "image_reward", "aesthetic"]

# open_clip's ViT-H-14. `gelu` is said because CLIP's default, quick_gelu, loads as well and scores wrong.
CLIP_H: Mapping[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
}
BLIP_L = BlipShape()
_ESSENTIAL = {"hpsv2": "vocab.json", "hpsv2.1": "vocab.json", "image_reward": "vocab.txt"}


def convert(
    name: Published,
    file: Path,
    out: Path,
    tokenizer: Path | None,
    *,
    clip: Mapping[str, Any] = CLIP_H,
    blip: BlipShape = BLIP_L,
) -> None:
    """Write the folder that the reward `name` loads from the published `file`, whose model has the shape `clip` or `blip`.

    `tokenizer` is a folder with the tokenizer's files, which the published files lack: CLIP-H's for HPSv2,
    bert-base-uncased's for ImageReward. Raises `ModelError` naming the file and what does not fit; `out` then is not
    there.
    """
    if out.exists():
        raise ModelError("output_exists", f"{out} exists already; expected a new folder")
    copies = _tokenizer_files(name, tokenizer)
    try:
        config, tensors = _converted(name, _read(file), clip, blip)
    except ValueError as error:
        raise ModelError("reward_invalid", f"{file}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as unfinished:
        folder = Path(unfinished) / out.name
        folder.mkdir()
        for path in copies:
            shutil.copyfile(path, folder / path.name)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        folder.rename(out)


def _converted(
    name: Published, state: Mapping[str, Any], clip: Mapping[str, Any], blip: BlipShape
) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    match name:
        case "hpsv2" | "hpsv2.1":
            if not isinstance(state.get("state_dict"), Mapping):
                raise ValueError("expected the key `state_dict`")
            config = CLIPConfig(**clip)
            return {**config.to_dict(), "hps_version": name}, _convert_hps(_tensors(state["state_dict"]), config)
        case "image_reward":
            return blip.to_dict(), _convert_image_reward(_tensors(state), blip)
        case "aesthetic":
            weight, bias = collapse(_tensors(state))
            return None, {"weight": weight, "bias": bias}
        case _:
            assert_never(name)


def _convert_hps(state: Mapping[str, Tensor], config: CLIPConfig) -> dict[str, Tensor]:
    tensors = clip_from_open_clip(state)
    with torch.device("meta"):
        expected = CLIPModel(config)
    check_tensors(tensors, _shapes(expected))
    return tensors


def _convert_image_reward(state: Mapping[str, Tensor], shape: BlipShape) -> dict[str, Tensor]:
    tensors = image_reward_from_blip(state)
    with torch.device("meta"):
        expected = ImageRewardNetwork(shape)
    check_tensors(tensors, _shapes(expected))
    return tensors


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise ModelError("reward_not_found", f"{file}: no such file")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"expected a file of tensors written by torch.save: {first_line}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"expected a dictionary of tensors, found {type(state).__name__}")
    return state


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            raise ValueError(f"expected a dictionary of tensors, found {type(value).__name__} under {name!r}")
    return dict(state)


def _tokenizer_files(name: Published, folder: Path | None) -> list[Path]:
    essential = _ESSENTIAL.get(name)
    if essential is None:
        return []
    found = [] if folder is None else [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
    if not {essential, "tokenizer.json"} & {path.name for path in found}:
        raise ModelError(
            "tokenizer_not_found", f"{name} needs --tokenizer FOLDER with a tokenizer.json or {essential}, got {folder}"
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m alignment_core.rewards.convert", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=get_args(Published), help="the reward")
    parser.add_argument("file", type=Path, help="its published weights")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer's files, for all but aesthetic")
    given = parser.parse_args(arguments)
    try:
        convert(given.name, given.file, given.out, given.tokenizer)
    except ModelError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
