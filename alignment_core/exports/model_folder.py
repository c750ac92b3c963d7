"""A whole diffusers folder with the trained weights in it, component by component, from a base model's folder."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.exports.saved_lora import merge_into
from alignment_core.families.keys import LoraLayer, LoraLayers
from alignment_core.families.source import ModelFolder, read_json
from alignment_core.safetensors_files import write_safetensors

LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # never loaded, and so never trained with
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")


@dataclass(frozen=True)
class TrainedFolder:
    """A model folder, and the updates that belong on top of it; none where the folder holds the trained weights itself."""

    folder: ModelFolder
    updates: Mapping[str, LoraLayers]

    @property
    def components(self) -> list[str]:
        """The parts that the pipeline is made of."""
        index = read_json(self.folder.path / "model_index.json")
        named = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
        inside = [name for name in named if name.isidentifier() and (self.folder.path / name).is_dir()]
        return [name for name in inside if name not in LEFT_OUT]

    def size_bytes(self, component: str) -> int:
        """How large the weights of a component are; 0 for a tokenizer."""
        return sum(path.stat().st_size for path in self.folder.weight_files(component))

    def config(self, component: str) -> dict[str, Any]:
        return read_json(self.folder.path / component / "config.json")

    def weights(self, component: str) -> dict[str, Tensor]:
        """All weights of a component, trained."""
        weights: dict[str, Tensor] = {}
        for path in self.folder.weight_files(component):
            weights |= load_file(path)
        self._merge(component, weights, self.updates.get(component, {}))
        return weights

    def write(self, out: Path) -> Iterator[int]:
        """Write the folder as `from_pretrained` reads it, without a variant in its names; yields bytes as they are done."""
        out.mkdir(parents=True, exist_ok=True)
        for component in self.components:
            self._copy_configs(component, out / component)
            missing = dict(self.updates.get(component, {}))
            for path in self.folder.weight_files(component):
                yield self._write_file(component, path, out / component, missing)
            self._refuse_missing(component, missing)
        self._write_index(out)
        for pattern in LICENCES:
            for path in self.folder.path.glob(pattern):
                if path.is_file():
                    shutil.copyfile(path, out / path.name)

    def _write_file(self, component: str, path: Path, target: Path, missing: dict[str, LoraLayer]) -> int:
        """One file of weights; what was merged into it is missing no longer."""
        name = self._plain(path.name)
        if not missing:
            shutil.copyfile(path, target / name)
        else:
            weights = load_file(path)
            for module in merge_into(weights, missing):
                del missing[module]
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {"format": "pt"}
            write_safetensors(target / name, weights, header)
        return path.stat().st_size

    def _merge(self, component: str, weights: dict[str, Tensor], layers: LoraLayers) -> None:
        found = merge_into(weights, layers)
        self._refuse_missing(component, {module: one for module, one in layers.items() if module not in found})

    def _refuse_missing(self, component: str, missing: LoraLayers) -> None:
        if missing:
            raise ModelError(
                "base_model_differs", f"the base model's {component} has no layer {min(missing)!r}, which was trained"
            )

    def _copy_configs(self, component: str, target: Path) -> None:
        target.mkdir(parents=True)
        source = self.folder.path / component
        for path in sorted(source.iterdir()):
            if path.suffix in (".json", ".txt", ".model") and ".index." not in path.name:
                shutil.copyfile(path, target / self._plain(path.name))
        for path in source.glob("*.index*.json"):
            if (self.folder.variant is None) == (".index.json" in path.name):
                text = self._plain(path.read_text(encoding="utf-8"))
                (target / self._plain(path.name)).write_text(text, encoding="utf-8")

    def _write_index(self, out: Path) -> None:
        index = read_json(self.folder.path / "model_index.json")
        index.pop("_name_or_path", None)
        gone = {name: [None, None] for name in LEFT_OUT if name in index}
        if "requires_safety_checker" in index:
            gone["requires_safety_checker"] = False  # pyright: ignore[reportArgumentType]
        (out / "model_index.json").write_text(json.dumps({**index, **gone}, indent=2) + "\n", encoding="utf-8")

    def _plain(self, name: str) -> str:
        return name.replace(f".{self.folder.variant}", "") if self.folder.variant else name
