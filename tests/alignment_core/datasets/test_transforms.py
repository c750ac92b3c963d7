import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alignment_core.datasets.transforms import (
    Crop,
    Pixels,
    Placement,
    draw_placement,
    draw_placements,
    frame,
    transform,
)
from tests.alignment_core.datasets.builders import pixels


def _image(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels(seed, width, height))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transform_pair(
    chosen: Image.Image,
    rejected: Image.Image,
    resolution: int,
    *,
    crop: Crop,
    horizontal_flip: bool,
    joint: bool,
    generator: torch.Generator,
) -> tuple[Pixels, Pixels]:
    first, second = draw_placements(generator, crop=crop, horizontal_flip=horizontal_flip, joint=joint)
    return transform(chosen, resolution, first), transform(rejected, resolution, second)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([8, 16, 32]))
def test_the_result_has_the_resolution_and_lies_within_one(width: int, height: int, resolution: int) -> None:
    result = transform(_image(0, width, height), resolution)
    assert result.shape == (3, resolution, resolution)
    assert result.dtype == torch.float32
    assert result.min() >= -1
    assert result.max() <= 1


def test_an_image_of_the_right_size_is_only_rescaled() -> None:
    expected = torch.from_numpy(pixels(0, 16, 16)).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(transform(_image(0, 16, 16), 16), expected)


def test_the_centre_is_cropped() -> None:
    result = transform(_image(0, 30, 16), 16)
    expected = torch.from_numpy(pixels(0, 30, 16)[:, 7:23].copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(result, expected)


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert transform(Image.fromarray(stripes), 16).abs().max() < 0.1  # without it: black or white


@pytest.mark.parametrize("horizontal_flip", [True, False])
def test_a_joint_transform_treats_both_images_alike(horizontal_flip: bool) -> None:
    image = _image(0, 40, 24)
    for seed in range(20):
        first, second = transform_pair(
            image, image, 16, crop="random", horizontal_flip=horizontal_flip, joint=True, generator=_generator(seed)
        )
        assert torch.equal(first, second)


def test_a_joint_transform_shares_the_relative_place_between_sizes() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (32, 64, 3))
    small, large = Image.fromarray(ramp.copy()), Image.fromarray(ramp.repeat(2, 0).repeat(2, 1).copy())
    for seed in range(10):
        pair = transform_pair(
            small, large, 16, crop="random", horizontal_flip=True, joint=True, generator=_generator(seed)
        )
        assert (pair[0] - pair[1]).abs().max() < 0.1


def test_separate_transforms_differ_within_a_pair() -> None:
    image = _image(0, 40, 24)
    pairs = [
        transform_pair(image, image, 16, crop="random", horizontal_flip=True, joint=False, generator=_generator(seed))
        for seed in range(10)
    ]
    assert any(not torch.equal(first, second) for first, second in pairs)


def test_the_generator_decides_everything() -> None:
    image = _image(0, 40, 24)
    results = [
        transform_pair(image, image, 16, crop="random", horizontal_flip=True, joint=True, generator=_generator(seed))[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_random_places_reach_both_ends() -> None:
    lefts = {round((transform(_image(0, 18, 16), 16, _place(seed))[0, 0, 0].item() + 1) * 127.5) for seed in range(60)}
    assert lefts == {int(value) for value in pixels(0, 18, 16)[0, :3, 0]}


def _place(seed: int) -> Placement:
    return draw_placement(_generator(seed), crop="random", horizontal_flip=False)


def test_half_of_the_images_are_mirrored() -> None:
    flips = [draw_placement(_generator(seed), crop="center", horizontal_flip=True).flip for seed in range(400)]
    assert 150 < sum(flips) < 250
    image = _image(0, 16, 16)
    assert torch.equal(transform(image, 16, Placement(flip=True)), transform(image, 16).flip(2))


@pytest.mark.parametrize("placement", [Placement(), Placement(0.3, 0.7), Placement(0.9, 0.1, flip=True)])
def test_a_frame_says_where_the_pixels_come_from(placement: Placement) -> None:
    image = _image(0, 61, 40)
    height, width, top, left = (int(number) for number in frame(image, 16, placement))
    assert (height, width) == (40, 61)
    resized = image.resize((61 * 16 // 40, 16), Image.Resampling.BILINEAR)
    seen = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if placement.flip else resized
    expected = torch.from_numpy(np.array(seen.crop((left, top, left + 16, top + 16)))).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(transform(image, 16, placement), expected)
