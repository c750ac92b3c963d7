"""CLIP's tokenizer as the files of a diffusers folder: the same one in every SD 1.x and SDXL, and in no single file.

`clip_merges.txt.gz` holds the 48,894 merges of https://github.com/openai/CLIP (`bpe_simple_vocab_16e6.txt.gz`, MIT licence,
Copyright (c) 2021 OpenAI); the vocabulary follows from them as in its `simple_tokenizer.py`.
"""

import gzip
import json
from pathlib import Path

MERGES = Path(__file__).parent / "clip_merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"
NUM_TOKENS = 49_408
LONGEST_PROMPT = 77
# The bytes that stand for themselves; the rest have letters from 256 on, so that no token holds white space.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]


def write_clip_tokenizer(folder: Path, padding: str = END) -> None:
    """Write `vocab.json`, `merges.txt` and the two configs. SDXL's second tokenizer pads with `!`, all others with the end."""
    folder.mkdir(parents=True)
    merges = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LONGEST_PROMPT,
        "tokenizer_class": "CLIPTokenizer",
    }
    for name, values in (
        ("vocab.json", vocabulary(merges)),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
    ):
        (folder / name).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Token to number: every byte, every byte at the end of a word, every merge, start and end."""
    others = [chr(256 + place) for place in range(256 - len(_PRINTABLE))]
    letters = [*map(chr, _PRINTABLE), *others]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair.split()) for pair in merges),
        START,
        END,
    ]
    return {token: number for number, token in enumerate(tokens)}
