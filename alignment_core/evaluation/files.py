"""Files that are complete or absent: written under another name first."""

from io import BytesIO
from pathlib import Path

from PIL import Image


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, making its folders; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` to `path` as PNG."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    replace_file(path, buffer.getvalue())
