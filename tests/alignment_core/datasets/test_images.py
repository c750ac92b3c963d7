import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alignment_core.datasets.images import MAX_ENCODED_BYTES, decode_image
from alignment_core.errors import DataError
from tests.alignment_core.datasets.builders import image_bytes, pixels


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_announcing(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_the_four_formats_decode_to_rgb(kind: str) -> None:
    image = decode_image(image_bytes(0, 30, 20, kind))
    assert (image.mode, image.size) == ("RGB", (30, 20))


def test_png_pixels_are_kept_exactly() -> None:
    assert np.array_equal(np.asarray(decode_image(image_bytes(3))), pixels(3))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match="PNG, JPEG, WEBP or AVIF") as caught:
        decode_image(_encoded(Image.new("RGB", (16, 16)), kind))
    assert caught.value.code == ("undecodable_image" if kind == "PPM" else "unread_image_format")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = image_bytes(0, 64, 64, kind)
    with pytest.raises(DataError) as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.code == "undecodable_image"


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(image_bytes(0))
    data[len(data) // 2] ^= 1
    with pytest.raises(DataError) as caught:
        decode_image(bytes(data))
    assert caught.value.code == "undecodable_image"


@pytest.mark.parametrize("size", [(9000, 9000), (11_000, 11_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(DataError) as caught:
        decode_image(_png_announcing(*size))
    assert caught.value.code == "image_too_large"


def test_a_file_of_many_bytes_is_refused() -> None:
    with pytest.raises(DataError, match=str(MAX_ENCODED_BYTES)) as caught:
        decode_image(image_bytes(0) + bytes(MAX_ENCODED_BYTES))
    assert caught.value.code == "image_too_large"


def test_a_sliver_is_refused() -> None:
    with pytest.raises(DataError, match="90x10") as caught:
        decode_image(image_bytes(0, 90, 10))
    assert caught.value.code == "extreme_aspect_ratio"


def test_exif_orientation_is_applied() -> None:
    image = Image.fromarray(pixels(1, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to display
    upright = decode_image(_encoded(image, exif=exif))
    assert np.array_equal(np.asarray(upright), np.rot90(pixels(1, 30, 20), -1))


def test_transparency_becomes_white() -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:4, :, 3] = 255
    result = np.asarray(decode_image(_encoded(Image.fromarray(rgba))))
    assert (result[:4] == 0).all()
    assert (result[4:] == 255).all()


def test_palette_transparency_becomes_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 8, 4))
    result = np.asarray(decode_image(_encoded(image, transparency=0)))
    assert result[0, 0].tolist() == [200, 100, 50]
    assert result[7, 7].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    result = np.asarray(decode_image(_encoded(Image.fromarray(grey))))
    assert np.array_equal(result[..., 0], (grey >> 8).astype(np.uint8))


def test_cmyk_jpeg_decodes() -> None:
    assert decode_image(_encoded(Image.new("CMYK", (16, 16)), "JPEG")).mode == "RGB"


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    length=st.floats(0, 1),
)
def test_damaged_bytes_give_an_image_or_a_data_error(kind: str, edits: list[tuple[float, int]], length: float) -> None:
    data = bytearray(image_bytes(0, 20, 20, kind))
    for place, value in edits:
        data[int(place * len(data))] = value
    assert _outcome(bytes(data[: int(length * len(data))])) in {
        "RGB",
        "undecodable_image",
        "image_too_large",
        "extreme_aspect_ratio",
    }


def _outcome(data: bytes) -> str:
    try:
        return decode_image(data).mode
    except DataError as error:
        return error.code


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError):
        decode_image(data)
