"""Which words of a prompt an attribute classifier knows: looked at before a run as in one. Pure data, no torch."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
LONGEST_CONFIG_BYTES = 2**20

Attributes = Mapping[str, Mapping[str, str]]
"""By attribute, the word or phrase in a prompt and the value that it names."""


def first_mention(prompt: str, words: Mapping[str, str]) -> str | None:
    """The word or phrase of `words` that comes first in `prompt`; of two, the longer."""
    alternatives = "|".join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))
    found = re.search(rf"(?<!\w)(?:{alternatives})(?!\w)", prompt.lower())
    if found is None:
        return None
    return next(word for word in words if word.lower() == found.group())


def why_without_score(prompt: str, attributes: Attributes) -> str | None:
    """What is said of a prompt that names no attribute; None for one that has a score."""
    if any(first_mention(prompt, words) is not None for words in attributes.values()):
        return None
    known = ", ".join(sorted(word for words in attributes.values() for word in words))
    return f"prompt {prompt!r} names no known attribute; known words: {known}"


def read_attributes(folder: Path) -> Attributes | None:
    """Those of a classifier's folder; None where this machine has no such folder, or it is none."""
    path = folder / CONFIG_FILE
    try:
        found: Any = json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST_CONFIG_BYTES else None
    except (OSError, ValueError):
        return None
    attributes = found.get("attributes") if isinstance(found, dict) else None
    is_whole = isinstance(attributes, dict) and all(isinstance(words, dict) and words for words in attributes.values())
    return attributes if is_whole and attributes else None
