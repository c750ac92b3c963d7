"""Prompts as tokens: all of them to count, or as many as an encoder reads."""

from collections.abc import Sequence

from torch import Tensor
from transformers import CLIPTokenizer, T5Tokenizer

Tokenizer = CLIPTokenizer | T5Tokenizer


def all_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt, without the marks of start and end."""
    return tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids


def read_tokens(tokenizer: Tokenizer, prompts: Sequence[str], length: int) -> Tensor:
    """`[B, length]`, padded; what is longer is cut, as in diffusers."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return tokens.input_ids
