"""What posteriors and text embeddings depend on, in a word: the name under which the cache keeps them."""

from collections.abc import Collection, Mapping

from alignment_core.families.keys import LoraLayers
from alignment_core.families.merge import fingerprint_of
from alignment_core.families.source import ModelFolder


def encoder_fingerprint(
    folder: ModelFolder, parts: tuple[str, ...], settings: Collection[object], merged: Mapping[str, LoraLayers]
) -> str:
    """Of the encoding parts' files, the settings that they are used with, and the LoRAs that were merged into them."""
    plain = "/".join([folder.fingerprint(parts), *map(str, settings)])
    if not (changed := {name: layers for name, layers in merged.items() if name in parts}):
        return plain
    return f"{plain}-{fingerprint_of(changed)}"
