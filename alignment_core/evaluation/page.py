"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

What users wrote (prompts, names) reaches the page through Jinja's escaping alone, and the page forbids itself to load or run
anything, by a content security policy that lets in its own style by hash and pictures that are part of it.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy import ndarray
from PIL import Image

from alignment_core.evaluation import words
from alignment_core.evaluation.compare import Comparison
from alignment_core.evaluation.plots import GainBars, LineChart, forest, gain_bars, line_charts
from alignment_core.evaluation.signs import warning_signs
from alignment_core.events import TimestepBin
from alignment_core.reports import BinTable, EvaluationReport, ImageScores

PAGE = "page.html.jinja"
STYLE = "page.css"
SEEDS_SHOWN = 2
MAX_TILE = 320  # pixels of a picture's longer side on the page
SMALL_TILE = 128  # smaller pictures are kept to the pixel, larger ones are photographs
HEADLINE_CURVES = (
    *(
        "reward",
        "implicit_accuracy",
        "margin",
        "loss",
        "accuracy_vs_init",
        "margin_vs_init",
        "chosen_gain",
        "rejected_gain",
    ),
    *("kl", "approx_kl", "tie_rate", "guidance_accepted", "clamped", "grad_norm"),
)
TINY = 1e-3
COLUMNS = (
    ("reward_magnitude", "mean |R|"),
    ("implicit_accuracy", "accuracy"),
    ("margin", "mean margin u"),
    ("signal_variance", "variance of the signal"),
    ("weight", "mean weight w(t)"),
)


@dataclass(frozen=True)
class Tile:
    """A picture of the page, as a data address, with the scores of its image."""

    source: str
    width: int
    height: int
    is_small: bool
    seed: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Shown:
    """One prompt of the grid: both models, the same seeds side by side."""

    prompt: str
    base: list[Tile]
    policy: list[Tile]


@dataclass(frozen=True)
class Column:
    """One figure of a by-timestep table: every bin's value, as a number and as text, and how long its bar is in percent."""

    title: str
    values: list[float | None]
    texts: list[str]
    bars: list[float]


@dataclass(frozen=True)
class ShownTable:
    table: BinTable
    columns: list[Column]


def render_page(report: EvaluationReport, comparison: Comparison) -> str:
    """The page of `report`, with the pictures of `comparison` in it."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    lines = [*report.rewards, *([report.prompt_following] if report.prompt_following else [])]
    charts = line_charts(report.curves)
    return (
        _environment()
        .get_template(PAGE)
        .render(
            report=report,
            style=style,
            style_sha256=digest,
            headline=words.headline(report),
            sides=words.sides(report),
            verdict=words.verdict(report),
            subject=words.subject(report),
            loading=words.loading(report),
            shown=_shown(report, comparison),
            lines=lines,
            forest=forest(lines),
            any_trained=any(line.trained for line in lines),
            signs=warning_signs(report),
            distributions=[
                _distribution(report, line.name, is_judge=line is report.prompt_following)
                for line in lines
                if line.num_ties < report.num_prompts * report.seeds_per_prompt
            ],
            num_pairs=report.num_prompts * report.seeds_per_prompt,
            splits={curve.split for curve in report.curves},
            charts=sorted([chart for chart in charts if _is_headline(chart)], key=_rank),
            other_charts=[chart for chart in charts if not _is_headline(chart)],
            tables=[_shown_table(table) for table in report.timestep_tables],
            longest_drift=max((one.eps_dist for one in report.drift.by_timestep), default=0.0) if report.drift else 0.0,
            spec_text=None if report.spec is None else json.dumps(report.spec, indent=2, ensure_ascii=False),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("alignment_core.evaluation", "."),
        autoescape=select_autoescape(["jinja"], default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": words.plain,
        "signed": words.signed,
        "percent": words.percent,
        "p_value": words.p_value,
        "short": _short,
    }
    environment.globals |= {"digits_of": words.digits_of}
    return environment


@cache
def _style() -> str:
    return files("alignment_core.evaluation").joinpath(STYLE).read_text(encoding="utf-8")


def _short(value: float | None) -> str:
    """Three significant figures, or a dash."""
    return "\N{EN DASH}" if value is None else f"{value:.3g}".replace("-", words.MINUS)


# --- pictures ------------------------------------------------------------------------------------------------------


def _shown(report: EvaluationReport, comparison: Comparison) -> list[Shown]:
    num_seeds = report.seeds_per_prompt
    return [
        Shown(
            prompt=comparison.prompts[prompt],
            base=_tiles(comparison.base.images[row], report.images[prompt * num_seeds :], is_base=True),
            policy=_tiles(comparison.policy.images[row], report.images[prompt * num_seeds :], is_base=False),
        )
        for row, prompt in enumerate(comparison.shown)
    ]


def _tiles(
    images: UInt8[ndarray, "seeds height width 3"], scores: Sequence[ImageScores], *, is_base: bool
) -> list[Tile]:
    return [
        _tile(pixels, one.seed, one.base if is_base else one.policy)
        for pixels, one in zip(images[:SEEDS_SHOWN], scores, strict=False)
    ]


def _tile(pixels: UInt8[ndarray, "height width 3"], seed: int, scores: dict[str, float]) -> Tile:
    """Small images as PNG, to the pixel; large ones as JPEG of at most `MAX_TILE`, so that a page stays a few megabytes."""
    picture, buffer = Image.fromarray(pixels), BytesIO()
    is_small = max(picture.size) <= SMALL_TILE
    picture.thumbnail((MAX_TILE, MAX_TILE), Image.Resampling.LANCZOS)
    if is_small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=88)
    kind = "png" if is_small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Tile(source, picture.width, picture.height, is_small, seed, scores)


# --- figures -------------------------------------------------------------------------------------------------------


def _distribution(report: EvaluationReport, name: str, *, is_judge: bool) -> GainBars:
    """Every prompt's mean gain over its seeds."""
    key, num_seeds = "prompt_following" if is_judge else name, report.seeds_per_prompt
    groups = [report.images[start : start + num_seeds] for start in range(0, len(report.images), num_seeds)]
    gains = [(group[0].prompt, sum(one.policy[key] - one.base[key] for one in group) / len(group)) for group in groups]
    return gain_bars("prompt-following" if is_judge else name, gains)


def _is_headline(chart: LineChart) -> bool:
    return _rank(chart) < len(HEADLINE_CURVES)


def _rank(chart: LineChart) -> int:
    """Held-out curves first, then what `HEADLINE_CURVES` names, in its order; the rest is folded away.

    A held-out gain is its curve less a constant: the curve says it.
    """
    if any(line.split == "held_out" for line in chart.lines) and not chart.metric.endswith("_gain"):
        return -1
    return HEADLINE_CURVES.index(chart.metric) if chart.metric in HEADLINE_CURVES else len(HEADLINE_CURVES)


def _shown_table(table: BinTable) -> ShownTable:
    columns = [_column(title, [_figure(one, name) for one in table.bins]) for name, title in COLUMNS]
    return ShownTable(table, [column for column in columns if set(column.values) not in ({None}, {None, 1.0}, {1.0})])


def _figure(row: TimestepBin, name: str) -> float | None:
    value: Any = getattr(row, name)
    return value


def _column(title: str, values: list[float | None]) -> Column:
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    lengths = [0.0 if value is None or largest == 0 else round(100 * abs(value) / largest, 1) for value in values]
    return Column(title, values, _aligned(values, largest), lengths)


def _aligned(values: list[float | None], largest: float) -> list[str]:
    """Three figures of the largest value, and as many decimals everywhere; powers of ten where all are tiny."""
    if largest == 0 or largest >= TINY:
        digits = words.digits_of(largest) + 1 if largest else 0
        return ["\N{EN DASH}" if value is None else words.plain(value, min(4, digits)) for value in values]
    return ["\N{EN DASH}" if value is None else f"{value:.2e}".replace("-", words.MINUS) for value in values]
