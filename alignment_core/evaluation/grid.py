"""One picture: base over aligned images of the same prompts and seeds, with captions and the headline figure."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from alignment_core.evaluation.words import digits_of, sides
from alignment_core.events import ComparedImages, PlaceInPicture, SampleGrid
from alignment_core.reports import EvaluationReport
from alignment_core.spec.counted import counted

Pictures = UInt8[ndarray, "prompts seeds height width 3"]

SEEDS_SHOWN = 2
TILE_RANGE = (160, 256)  # pixels of a tile's longer side: smaller images are enlarged, larger ones reduced
MAX_WIDTH = 1540

_MARGIN, _TILE_GAP, _BLOCK_GAP, _LABEL_WIDTH, _HEADER_HEIGHT = 32, 4, 28, 84, 92
_TITLE_SIZE, _TEXT_SIZE, _CAPTION_LINES = 28, 16, 3
_LINE_HEIGHT, _CAPTION_PADDING = 20, 8
_PAPER, _INK, _MUTED, _ACCENT = "#ffffff", "#1a1d21", "#6b7280", "#0f766e"


@dataclass(frozen=True)
class Headline:
    """The two lines above the images, and what the rows of a block are called."""

    title: str
    subtitle: str
    sides: tuple[str, str] = ("base", "aligned")


def headline_of(report: EvaluationReport) -> Headline:
    """The primary reward before and after, its gain and interval, and how they were measured."""
    num_pairs = report.num_prompts * report.seeds_per_prompt
    first, second = sides(report)
    trained = (
        f", after {counted(report.step, 'step')}"
        if second == "aligned"
        else f": {report.policy.label} against {report.base.label}"
    )
    drawn = f"{counted(report.num_prompts, 'prompt')} x {counted(report.seeds_per_prompt, 'seed')}{trained}."
    if not report.rewards:
        return Headline(
            f"{first.capitalize()} and {second} model", f"Same prompt and noise in each pair; {drawn}", (first, second)
        )
    primary, interval = report.rewards[0], report.rewards[0].gain_interval
    digits = digits_of(interval.high - interval.low)
    before, after = (f"{value:.{digits}f}" for value in (primary.base_mean, primary.policy_mean))
    gain, low, high = (f"{value:+.{digits}f}" for value in (primary.gain, interval.low, interval.high))
    whose = "aligned" if second == "aligned" else f"{second}'s"
    facts = [
        f"{report.verdict.replace('_', ' ')}: the {whose} image scores higher in {primary.win_rate:.0%} of {counted(num_pairs, 'pair')}"
        " of the same prompt and noise"
    ]
    if judge := report.prompt_following:
        facts.append(f"prompt-following {judge.base_mean:.3f} before, {judge.policy_mean:.3f} after")
    confidence = f"{100 * interval.confidence:g}%"
    title = f"{primary.name} {before} to {after}: {gain} ({confidence} interval {low} to {high})"
    return Headline(title, "; ".join([*facts, drawn]), (first, second))


def draw_grid(prompts: Sequence[str], base: Pictures, policy: Pictures, headline: Headline) -> Image.Image:
    """Blocks of one prompt each, base above aligned, with at most `SEEDS_SHOWN` seeds side by side."""
    base, policy = base[:, :SEEDS_SHOWN], policy[:, :SEEDS_SHOWN]
    captions = _captions(prompts, *base.shape[1:4])
    layout = _layout(captions, *base.shape[1:4])
    canvas = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN - 6), _drawable(headline.title), _INK, _font(_TITLE_SIZE))
    for number, line in enumerate(_wrap(_drawable(headline.subtitle), layout.size[0] - 2 * _MARGIN)):
        draw.text((_MARGIN, _MARGIN + 32 + number * _LINE_HEIGHT), line, _MUTED, _font(_TEXT_SIZE))
    for row in range(layout.rows):
        _draw_labels(draw, layout, row, headline.sides)
    for index, caption in enumerate(captions):
        x, y = layout.corner(index)
        _paste_row(canvas, layout, base[index], x, y)
        _paste_row(canvas, layout, policy[index], x, y + layout.to_policy)
        for number, line in enumerate(caption):
            top = y + layout.images_height + _CAPTION_PADDING + number * _LINE_HEIGHT
            draw.text((x, top), line, _INK, _font(_TEXT_SIZE))
    return canvas


def places_in_grid(prompts: Sequence[str], seeds: Sequence[Sequence[int]], images: Pictures) -> SampleGrid:
    """Where `draw_grid` puts the images of these prompts, each from its seeds; `images` are those of either model."""
    num_seeds, height, width = min(images.shape[1], SEEDS_SHOWN), *images.shape[2:4]
    layout = _layout(_captions(prompts, num_seeds, height, width), num_seeds, height, width)
    tiles = []
    for index, own in enumerate(seeds):
        x, y = layout.corner(index)
        for number, seed in enumerate(own[:num_seeds]):
            left = x + number * layout.to_next_seed
            base, policy = PlaceInPicture(x=left, y=y), PlaceInPicture(x=left, y=y + layout.to_policy)
            tiles.append(ComparedImages(prompt=index, seed=seed, base=base, policy=policy))
    return SampleGrid(
        tile_width=layout.tile_width,
        tile_height=layout.tile_height,
        image_width=width,
        image_height=height,
        tiles=tiles,
    )


@dataclass(frozen=True)
class _Layout:
    rows: int
    columns: int
    tile_height: int
    tile_width: int
    block_width: int
    caption_lines: int

    @property
    def to_policy(self) -> int:
        """From the top of a base image to that of the policy's below it."""
        return self.tile_height + _TILE_GAP

    @property
    def to_next_seed(self) -> int:
        return self.tile_width + _TILE_GAP

    @property
    def images_height(self) -> int:
        return self.to_policy + self.tile_height

    @property
    def block_height(self) -> int:
        return self.images_height + _CAPTION_PADDING + self.caption_lines * _LINE_HEIGHT

    @property
    def size(self) -> tuple[int, int]:
        width = 2 * _MARGIN + _LABEL_WIDTH + self.columns * (self.block_width + _BLOCK_GAP) - _BLOCK_GAP
        return width, 2 * _MARGIN + _HEADER_HEIGHT + self.rows * (self.block_height + _BLOCK_GAP) - _BLOCK_GAP

    def corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self.columns)
        x = _MARGIN + _LABEL_WIDTH + column * (self.block_width + _BLOCK_GAP)
        return x, _MARGIN + _HEADER_HEIGHT + row * (self.block_height + _BLOCK_GAP)


def _captions(prompts: Sequence[str], num_seeds: int, height: int, width: int) -> list[list[str]]:
    return [_wrap(_drawable(prompt), _block_width(num_seeds, height, width)) for prompt in prompts]


def _layout(captions: Sequence[Sequence[str]], seeds: int, height: int, width: int) -> _Layout:
    block_width = _block_width(seeds, height, width)
    fitting = max(1, (MAX_WIDTH - 2 * _MARGIN - _LABEL_WIDTH + _BLOCK_GAP) // (block_width + _BLOCK_GAP))
    rows = math.ceil(len(captions) / fitting)
    columns = math.ceil(len(captions) / rows)
    return _Layout(rows, columns, *_tile_size(height, width), block_width, max(map(len, captions)))


def _block_width(seeds: int, height: int, width: int) -> int:
    _, tile_width = _tile_size(height, width)
    return seeds * (tile_width + _TILE_GAP) - _TILE_GAP


def _tile_size(height: int, width: int) -> tuple[int, int]:
    """Whole multiples of small images, so that every pixel stays square; large images shrink to fit."""
    smallest, largest = TILE_RANGE
    longer = max(width, height)
    if longer < smallest:
        factor = math.ceil(smallest / longer)
        return height * factor, width * factor
    scale = min(1.0, largest / longer)
    return round(height * scale), round(width * scale)


def _paste_row(canvas: Image.Image, layout: _Layout, images: ndarray, x: int, y: int) -> None:
    size = (layout.tile_width, layout.tile_height)
    for number, pixels in enumerate(images):
        enlarged = pixels.shape[1] < layout.tile_width
        resampling = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        tile = Image.fromarray(pixels).resize(size, resampling)
        canvas.paste(tile, (x + number * layout.to_next_seed, y))


def _draw_labels(draw: ImageDraw.ImageDraw, layout: _Layout, row: int, sides: tuple[str, str]) -> None:
    _, y = layout.corner(row * layout.columns)
    for number, (label, color) in enumerate(zip(sides, (_MUTED, _ACCENT), strict=True)):
        middle = y + number * layout.to_policy + layout.tile_height // 2
        draw.text((_MARGIN + _LABEL_WIDTH - 14, middle), label, color, _font(_TEXT_SIZE), anchor="rm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _drawable(text: str) -> str:
    """`text` on one line in the characters that Pillow's own font has: accents dropped, others as `?`."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    letters = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, at most `_CAPTION_LINES` of them, the last one cut with an ellipsis."""
    font, lines, words = _font(_TEXT_SIZE), [], text.split()
    while words and len(lines) < _CAPTION_LINES:
        taken = 1
        while taken < len(words) and font.getlength(" ".join(words[: taken + 1])) <= width:
            taken += 1
        lines.append(" ".join(words[:taken]))
        words = words[taken:]
    if words:
        lines[-1] = _cut(lines[-1], width)
    return [line if font.getlength(line) <= width else _cut(line, width) for line in lines] or ['""']


def _cut(line: str, width: int) -> str:
    """`line` with an ellipsis for what is left out, at most `width` pixels long."""
    font, line = _font(_TEXT_SIZE), line[:width]  # no letter is narrower than a pixel
    while line and font.getlength(f"{line}...") > width:
        line = line[:-1]
    return f"{line.rstrip(' .')}..."
