"""LoRA files that no tool should have written are refused in words, and never crash their check."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.lora_file import read_lora

LAYER = "unet.down_blocks.0.to_q"
A, B, ALPHA = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight", f"{LAYER}.alpha"
GOOD = {A: torch.ones(2, 4), B: torch.ones(3, 2)}
ODD: dict[str, tuple[dict[str, Tensor], str]] = {
    "an alpha that is no number": ({**GOOD, ALPHA: torch.tensor(float("nan"))}, "is nan; expected a finite number"),
    "an endless alpha": ({**GOOD, ALPHA: torch.tensor(float("inf"))}, "is inf; expected a finite number"),
    "a complex alpha": ({**GOOD, ALPHA: torch.tensor(1 + 2j)}, "it is no part of a LoRA"),
    "weights that are no numbers": ({**GOOD, B: torch.full((3, 2), float("nan"))}, "expected finite weights"),
    "whole numbers": ({**GOOD, A: torch.ones(2, 4, dtype=torch.int32)}, "is of torch.int32; expected floating point"),
    "complex weights": ({**GOOD, A: torch.ones(2, 4, dtype=torch.complex64)}, "expected floating point"),
    "single numbers": ({A: torch.tensor(1.0), B: torch.tensor(1.0)}, "expected [rank, in] and [out, rank]"),
}
ODD_HEADERS = {
    "an alpha that is no number": ('{"unet.lora_alpha": NaN}', "is nan; expected a finite number"),
    "a hundred thousand brackets": ("[" * 100_000, "is no JSON"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_refused_in_words(name: str, tmp_path: Path) -> None:
    tensors, message = ODD[name]
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError) as caught:
        read_lora(tmp_path / "odd.safetensors")
    assert caught.value.code == "lora_invalid"
    assert message in caught.value.message


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_odd_headers_are_refused_in_words(name: str, tmp_path: Path) -> None:
    header, message = ODD_HEADERS[name]
    save_file(GOOD, tmp_path / "odd.safetensors", {"lora_adapter_metadata": header})
    with pytest.raises(ModelError) as caught:
        read_lora(tmp_path / "odd.safetensors")
    assert caught.value.code == "lora_invalid"
    assert message in caught.value.message


def test_a_pattern_of_alphas_that_is_a_list_is_passed_over(tmp_path: Path) -> None:
    header = json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": [1]})
    save_file(GOOD, tmp_path / "odd.safetensors", {"lora_adapter_metadata": header})
    assert read_lora(tmp_path / "odd.safetensors").layers[LAYER].alpha == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_short_floating_point_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({key: value.to(dtype) for key, value in GOOD.items()}, tmp_path / "short.safetensors")
    assert read_lora(tmp_path / "short.safetensors").layers[LAYER].down.dtype == dtype
