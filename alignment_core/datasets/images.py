"""The one place where images of users are decoded.

PNG, JPEG, WEBP and AVIF only. The size is read from the header and refused before any pixel is decoded, so a decompression bomb
costs nothing. The first frame counts, the EXIF orientation is applied, transparency is composited on white, 16-bit grey
is reduced to 8 bits, and colour profiles are ignored, as the published training scripts do.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from alignment_core.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
# HEIC needs a library under other terms than ours; the rest has no place among photographs
UNREAD_FORMS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"<svg": "SVG",
    b"%PDF": "PDF",
    b"<!DOCTYPE": "HTML",
    b"<!doctype": "HTML",
    b"<html": "HTML",
}
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
MAX_ENCODED_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MAX_ASPECT_RATIO = 8.0  # resizing the shorter side to the training resolution must not blow up the longer one

# What Pillow's three decoders were seen to raise on damaged input. The warning is an error where the caller made it one.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode_image(data: bytes) -> Image.Image:
    """The image as 8-bit RGB, upright.

    Raises `DataError`: `undecodable_image`, or `image_too_large` and `extreme_aspect_ratio` before anything is decoded.
    """
    if len(data) > MAX_ENCODED_BYTES:
        raise DataError("image_too_large", f"{len(data)} bytes; expected at most {MAX_ENCODED_BYTES}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            image.verify()  # checksums, and all of PNG's chunks; it leaves the image unusable, hence the second open
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError("image_too_large", f"more than {MAX_PIXELS} pixels were announced") from error
    except _DECODER_ERRORS as error:
        if (form := _unread_form(data)) is not None:
            message = f"a {form} file, which is not read here; convert it to PNG, JPEG, WEBP or AVIF"
            raise DataError("unread_image_format", message) from error
        raise DataError(
            "undecodable_image", f"not a readable image ({_reason(error)}); expected PNG, JPEG, WEBP or AVIF"
        ) from error


def _unread_form(data: bytes) -> str | None:
    """The name of a form that others read, by its first bytes; None for one of ours, and for what is no image at all."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "HEIC"
    return next((form for magic, form in UNREAD_FORMS.items() if data.startswith(magic)), None)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError("image_too_large", f"{width}x{height} pixels; expected at most {MAX_PIXELS} in all")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(
            "extreme_aspect_ratio",
            f"{width}x{height} pixels; expected a longer side of at most {MAX_ASPECT_RATIO:g} times the shorter one",
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip everything above 255 to white
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format"
    return str(error)[:100] or type(error).__name__
