import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.captions import SHAPES, Caption, all_captions
from demo.renderer import HUES, draw_scene, hsv_to_rgb, render, signed_distance

captions = st.lists(st.sampled_from(all_captions()), min_size=1, max_size=8)
seeds = st.integers(0, 2**32 - 1)
units = st.floats(0, 1, width=32)


def shape_mask(image: np.ndarray) -> np.ndarray:
    """Pixels that are not background: the background is the grey of the corner."""
    return np.abs(image - image[:, :1, :1]).max(axis=0) > 0.05


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Centre of the shape as x, y in [-1, 1]."""
    rows, columns = np.nonzero(shape_mask(image))
    return (columns.mean() + 0.5) / 16 - 1, (rows.mean() + 0.5) / 16 - 1


@given(captions, seeds)
def test_images_are_float32_in_the_unit_range(batch, seed):
    images = render(batch, np.random.default_rng(seed))
    assert images.shape == (len(batch), 3, 32, 32)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1


@given(captions, seeds)
def test_the_same_seed_gives_the_same_bytes(batch, seed):
    first, second = (render(batch, np.random.default_rng(seed)).tobytes() for _ in range(2))
    assert first == second


@given(captions, seeds)
def test_the_shape_lies_inside_the_image(batch, seed):
    scene = draw_scene(batch, np.random.default_rng(seed))
    assert (np.abs(scene.center).max(axis=1) + scene.radius).max() <= 1
    assert all(shape_mask(image).any() for image in render(batch, np.random.default_rng(seed)))


def nearest_color(image: np.ndarray) -> str:
    """The name of the hue of the most saturated pixel."""
    r, g, b = max(image.reshape(3, -1).T.tolist(), key=lambda rgb: max(rgb) - min(rgb))
    hue = colorsys.rgb_to_hsv(r, g, b)[0]
    return min(HUES, key=lambda color: abs((hue - HUES[color] + 0.5) % 1 - 0.5))


def test_the_colour_is_the_named_one():
    images = render(all_captions(), np.random.default_rng(0))
    assert [nearest_color(image) for image in images] == [caption.color for caption in all_captions()]


@given(st.sampled_from(all_captions()), seeds)
def test_the_position_is_the_named_one(caption, seed):
    x, y = centroid(render([caption], np.random.default_rng(seed))[0])
    match caption.position:
        case "left" | "right":
            assert abs(x) > abs(y)
            assert (x > 0) == (caption.position == "right")
        case "top" | "bottom":
            assert abs(y) > abs(x)
            assert (y > 0) == (caption.position == "bottom")
        case None:
            assert max(abs(x), abs(y)) < 0.25


@given(st.sampled_from(SHAPES), seeds)
def test_big_covers_more_than_small(shape, seed):
    sizes = [Caption("red", shape, size=size) for size in ("small", "big")]
    small, big = (shape_mask(image).sum() for image in render(sizes, np.random.default_rng(seed)))
    assert big > small


@given(st.sampled_from(SHAPES), st.floats(-np.pi, np.pi))
def test_a_shape_of_radius_one_lies_within_the_unit_circle(shape, direction):
    x, y = np.array([1.01 * np.cos(direction)]), np.array([1.01 * np.sin(direction)])
    assert signed_distance(shape, x, y) > 0
    assert signed_distance(shape, np.zeros(1), np.zeros(1)) < 0


def test_an_unknown_shape_is_refused_by_name():
    with pytest.raises(ValueError, match="star"):
        signed_distance("star", np.zeros(1), np.zeros(1))


@given(units, units, units)
def test_hsv_agrees_with_the_standard_library(hue, saturation, value):
    rgb = hsv_to_rgb(np.array([hue]), np.array([saturation]), np.array([value]))[0]
    np.testing.assert_allclose(rgb, colorsys.hsv_to_rgb(hue, saturation, value), atol=1e-5)
