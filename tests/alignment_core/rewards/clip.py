"""A tiny random CLIP in the published file layout, as small as a test needs."""

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel

IMAGE_SIZE = 16
WORDS = ("red", "circle", "blue", "square", "a")


def save_tiny_clip(folder: Path, size: int = IMAGE_SIZE, seed: int = 0) -> None:
    """Write config, safetensors weights, tokenizer and preprocessor of a random CLIP for 16-pixel crops."""
    vocab = save_tiny_tokenizer(folder)
    torch.manual_seed(seed)
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"], "pad_token_id": 1}
    text = {**width, **ids, "vocab_size": len(vocab), "max_position_embeddings": 77}
    vision = {**width, "image_size": IMAGE_SIZE, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    with torch.no_grad():  # larger weights than the initialisation's, so that images and prompts differ clearly
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    preprocessor = {
        "crop_size": IMAGE_SIZE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def save_tiny_tokenizer(folder: Path) -> dict[str, int]:
    """Write a CLIP tokenizer that knows the bytes and WORDS; returns its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = _byte_pairs()
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return vocab


def _byte_pairs() -> tuple[dict[str, int], list[str]]:
    """Byte-level alphabet, then the merges that spell WORDS, as in the published vocabulary."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens, merges = [*alphabet, *(f"{letter}</w>" for letter in alphabet)], []
    for word in WORDS:
        left = word[0] if len(word) > 1 else ""
        for index, letter in enumerate(word[1:], start=1):
            right = letter if index < len(word) - 1 else f"{letter}</w>"
            if f"{left} {right}" not in merges:
                merges.append(f"{left} {right}")
            left += right
            if left not in tokens:
                tokens.append(left)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges
