"""Draws captions as 32x32 RGB images from signed distances, vectorised over a batch.

Coordinates are [-1, 1] in both directions, y down. Every shape lies within the circle of
`radius` around its centre, so an image that keeps that circle inside keeps the shape inside.
What a caption leaves unnamed, and the tint, angle and background, are drawn from `rng`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.captions import COLORS, SHAPES, Caption

IMAGE_SIZE = 32
HUES = {color: index / len(COLORS) for index, color in enumerate(COLORS)}
RADIUS_RANGES = {"small": (0.38, 0.46), "big": (0.58, 0.68), None: (0.38, 0.68)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), None: (0, 0)}
MARGIN = 0.02

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Scene:
    """The numbers that fix a batch of images: one row an image."""

    shape_index: NDArray[np.int64]
    radius: Floats
    center: Floats  # [B, 2] as x, y
    angle: Floats
    rgb: Floats  # [B, 3]
    background: Floats


def hsv_to_rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Hue, saturation and value in [0, 1], each [B], to RGB [B, 3]."""
    offsets = np.array([5, 3, 1], dtype=np.float32)
    k = (offsets + hue[:, None] * 6) % 6
    fall = np.clip(np.minimum(k, 4 - k), 0, 1)
    return (value[:, None] * (1 - saturation[:, None] * fall)).astype(np.float32)


def draw_scene(captions: Sequence[Caption], rng: np.random.Generator) -> Scene:
    """One random scene for each caption."""
    n = len(captions)
    low, high = np.array([RADIUS_RANGES[c.size] for c in captions]).T
    radius = rng.uniform(low, high)
    room = (1 - MARGIN - radius)[:, None]
    direction = np.array([DIRECTIONS[c.position] for c in captions], dtype=np.float64)
    jitter = rng.uniform(-1, 1, (n, 2)) * np.minimum(0.12, room)
    along = direction * room * rng.uniform(0.8, 1.0, (n, 1))
    hue = np.array([HUES[c.color] for c in captions]) + rng.uniform(-0.02, 0.02, n)
    rgb = hsv_to_rgb(hue % 1, rng.uniform(0.5, 1, n), rng.uniform(0.7, 1, n))
    return Scene(
        shape_index=np.array([SHAPES.index(c.shape) for c in captions]),
        radius=radius.astype(np.float32),
        center=np.where(direction != 0, along, jitter).astype(np.float32),
        angle=rng.uniform(-0.25, 0.25, n).astype(np.float32),
        rgb=rgb,
        background=rng.uniform(0.02, 0.35, n).astype(np.float32),
    )


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _triangle(x: Floats, y: Floats) -> Floats:
    """Equilateral, point up: the largest of the three half-plane distances (exact inside)."""
    slope = np.float32(np.sqrt(3) / 2)
    return np.maximum(y - 0.5, slope * np.abs(x) - 0.5 * y - 0.5)


def signed_distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Distance to the edge of `shape` of radius 1 at the origin, negative inside."""
    match shape:
        case "circle":
            return np.hypot(x, y) - 0.85
        case "square":
            return _box(x, y, 0.7, 0.7)
        case "triangle":
            return _triangle(x, y)
        case "cross":
            return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))
        case _:
            raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


def rasterize(scene: Scene, image_size: int = IMAGE_SIZE) -> Floats:
    """Anti-aliased images of `scene`: float32 [B, 3, H, W] in [0, 1]."""
    axis = (np.arange(image_size, dtype=np.float32) + 0.5) * 2 / image_size - 1
    row, column = np.meshgrid(axis, axis, indexing="ij")
    dx = column[None] - scene.center[:, 0, None, None]
    dy = row[None] - scene.center[:, 1, None, None]
    cos, sin = np.cos(scene.angle)[:, None, None], np.sin(scene.angle)[:, None, None]
    radius = scene.radius[:, None, None]
    x, y = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    distance = np.empty_like(x)
    for index, shape in enumerate(SHAPES):
        rows = scene.shape_index == index
        distance[rows] = signed_distance(shape, x[rows], y[rows])
    # A pixel is 2 / image_size wide: coverage falls from 1 to 0 over one pixel at the edge.
    coverage = np.clip(0.5 - distance * radius * image_size / 2, 0, 1)[:, None]
    background = scene.background[:, None, None, None]
    return (background + coverage * (scene.rgb[:, :, None, None] - background)).astype(np.float32)


def render(captions: Sequence[Caption], rng: np.random.Generator, image_size: int = IMAGE_SIZE) -> Floats:
    """One image a caption: float32 [B, 3, H, W] in [0, 1]. The same `rng` state, the same bytes."""
    return rasterize(draw_scene(captions, rng), image_size)


def render_random(
    captions: Sequence[Caption], num_images: int, rng: np.random.Generator
) -> tuple[Floats, list[Caption]]:
    """`num_images` images of captions drawn uniformly from `captions`, and those captions."""
    drawn = [captions[index] for index in rng.integers(len(captions), size=num_images)]
    return render(drawn, rng), drawn
