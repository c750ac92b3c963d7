"""safetensors files that are the same bytes whenever they are made of the same tensors.

The library sorts the tensors, and keeps the header's own entries (`__metadata__`) in a hash map whose order is another one
each time: https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

METADATA = "__metadata__"


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and header entries; equal ones give equal bytes."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, dict(metadata))
    order_metadata(path)


def order_metadata(path: Path) -> None:
    """Sort the header entries of a file in place."""
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header[METADATA] = dict(sorted(header[METADATA].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= size, "the same entries in another order are as long"
        file.seek(8)
        file.write(ordered.ljust(size))
