"""`scores.parquet`: every score of an evaluation, a row each, from which anybody can compute its table again.

The columns say which model, by its hash, drew which image, by its hash, of which prompt and seed, and what which reward, by its hash,
gave for it. The file's own metadata holds how intervals are made.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignment_core.errors import DataError
from alignment_core.evaluation.compare import Comparison
from alignment_core.evaluation.draw_and_judge import Drawn
from alignment_core.evaluation.files import replace_file
from alignment_core.evaluation.report import Bootstrap, Figures, figures_of, verdict_of
from alignment_core.evaluation.scored_prompts import DrawnSoFar
from alignment_core.reports import RewardComparison, Standing, Standings, holm
from alignment_core.spec.training import Precision

SAID = b"attune"
NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("contender", NAMES),
        pa.field("model_sha256", NAMES),
        pa.field("prompt_index", pa.int32()),
        pa.field("prompt", NAMES),
        pa.field("seed", pa.int64()),
        pa.field("image_sha256", pa.string()),
        pa.field("reward", NAMES),
        pa.field("reward_sha256", NAMES),
        pa.field("score", pa.float64()),
        pa.field("prompt_diversity", pa.float64()),
    ]
)


READ = ("contender", "model_sha256", "prompt", "seed", "reward", "reward_sha256", "score")


@dataclass(frozen=True)
class Rules:
    """What a table of scores is read by: who is compared with whom, and how intervals are made."""

    spec_sha256: str
    anchor: str
    bootstrap: Bootstrap


@dataclass(frozen=True)
class MadeWith:
    """What drew the images of a table, as its file says it."""

    precision: Precision
    cards: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class ScoreTable:
    """All scores; contenders and judges in the order of the spec, and the hash that each is known by."""

    rules: Rules
    prompts: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    drawn: Mapping[str, Drawn]
    models: Mapping[str, str]
    judges: Mapping[str, str]

    def against_anchor(self, contender: str, shown: Sequence[int] = ()) -> Comparison:
        """The anchor as the base, the contender as the policy."""
        sides = (self.drawn[self.rules.anchor], self.drawn[contender])
        return Comparison(self.prompts, self.seeds, tuple(shown), *sides)

    @property
    def challengers(self) -> list[str]:
        """Every contender but the anchor."""
        return [name for name in self.drawn if name != self.rules.anchor]


def standings_of(table: ScoreTable) -> Standings:
    """All that the report says of scores. Where several contenders are compared, their p-values are corrected after Holm."""
    figures = {name: figures_of(table.against_anchor(name), table.rules.bootstrap) for name in table.challengers}
    if len(figures) > 1:
        figures = _corrected(figures)
    standings = [_standing(name, one, len(table.prompts)) for name, one in figures.items()]
    return Standings(
        anchor=table.rules.anchor, best=_best(standings, table.rules.bootstrap.confidence), standings=standings
    )


def _standing(contender: str, figures: Figures, num_prompts: int) -> Standing:
    return Standing(
        contender=contender,
        verdict=verdict_of(figures.rewards[0] if figures.rewards else None, num_prompts),
        rewards=list(figures.rewards),
        prompt_following=figures.prompt_following,
        diversity=figures.diversity,
    )


def _corrected(figures: Mapping[str, Figures]) -> dict[str, Figures]:
    """Of each reward apart: how many of them are looked at is the reader's choice, and is not corrected for."""
    rewards = zip(
        *(_with_holm(lines) for lines in zip(*(one.rewards for one in figures.values()), strict=True)), strict=True
    )
    judged = [one.prompt_following for one in figures.values() if one.prompt_following is not None]
    judges = _with_holm(judged) if judged else [None] * len(figures)
    return {
        name: replace(one, rewards=list(lines), prompt_following=judge)
        for (name, one), lines, judge in zip(figures.items(), rewards, judges, strict=True)
    }


def _with_holm(lines: Sequence[RewardComparison]) -> list[RewardComparison]:
    corrected = holm([line.p_value for line in lines])
    return [line.model_copy(update={"holm_p_value": p}) for line, p in zip(lines, corrected, strict=True)]


def _best(standings: Sequence[Standing], confidence: float) -> str | None:
    """The largest gain of those that are better beyond the correction."""
    better = [one for one in standings if one.verdict == "improved" and _is_certain(one.rewards[0], confidence)]
    return max(better, key=lambda one: one.rewards[0].gain).contender if better else None


def _is_certain(line: RewardComparison, confidence: float) -> bool:
    return line.holm_p_value is None or line.holm_p_value < 1 - confidence


# --- from what was drawn, to the file and back ---------------------------------------------------------------------


def table_of(
    rules: Rules,
    prompts: Sequence[str],
    seeds: Sequence[Sequence[int]],
    drawn: Mapping[str, DrawnSoFar],
    shown: Sequence[int],
) -> ScoreTable:
    """The table of what has been drawn, all of it, with the pictures of the prompts `shown`."""
    made = {name: found.made[0] for name, found in drawn.items()}
    return ScoreTable(
        rules,
        tuple(prompts),
        tuple(map(tuple, seeds)),
        {name: found.as_drawn(shown) for name, found in drawn.items()},
        {name: one.contender.sha256 for name, one in made.items()},
        {judge.name: judge.sha256 for judge in made[rules.anchor].judges},
    )


def made_of(drawn: Mapping[str, DrawnSoFar]) -> MadeWith:
    """What drew the images: the cards of all attempts, the versions of the first."""
    made = [one for found in drawn.values() for one in found.made]
    return MadeWith(made[0].precision, tuple(dict.fromkeys(one.card for one in made)), made[0].versions)


def write_table(table: ScoreTable, drawn: Mapping[str, DrawnSoFar], path: Path) -> None:
    """Write the file: by contender, prompt, seed and judge."""
    rows = [row for name, found in drawn.items() for row in _rows(table, name, found)]
    columns = pa.Table.from_pylist(
        rows, SCHEMA.with_metadata({SAID: json.dumps(_said(table.rules, made_of(drawn))).encode()})
    )
    buffer = io.BytesIO()
    pq.write_table(columns, buffer, compression="zstd")
    replace_file(path, buffer.getvalue())


def _rows(table: ScoreTable, name: str, found: DrawnSoFar) -> list[dict[str, Any]]:
    facts, judges = found.made[0].contender, found.made[0].judges
    return [
        {
            "contender": name,
            "model_sha256": facts.sha256,
            "prompt_index": position,
            "prompt": table.prompts[position],
            "seed": seed,
            "image_sha256": row.image_sha256[number],
            "reward": judge.name,
            "reward_sha256": judge.sha256,
            "score": row.scores[index][number],
            "prompt_diversity": row.distance,
        }
        for position, row in sorted(found.prompts.items())
        for number, seed in enumerate(table.seeds[position])
        for index, judge in enumerate(judges)
    ]


def _said(rules: Rules, made: MadeWith) -> dict[str, Any]:
    return {**vars(rules), "bootstrap": vars(rules.bootstrap), "made": {**vars(made), "versions": dict(made.versions)}}


def made_with(path: Path) -> MadeWith:
    """What drew the images of a table that has been read."""
    made = json.loads(pq.read_schema(path).metadata[SAID])["made"]
    return MadeWith(**{**made, "cards": tuple(made["cards"])})


def read_table(path: Path) -> ScoreTable:
    """The scores of a file; raises `DataError` for a file that is none of these."""
    try:
        columns = pq.read_table(path)
        said = json.loads((columns.schema.metadata or {})[SAID])
        rules = Rules(said["spec_sha256"], said["anchor"], Bootstrap(**said["bootstrap"]))
        found = {name: columns.column(name).to_pylist() for name in READ}
        distances = columns.column("prompt_diversity").to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise DataError("scores_invalid", f"{path.name}: no table of an evaluation's scores: {error}") from error
    contenders, prompts, rewards = (tuple(dict.fromkeys(found[name])) for name in ("contender", "prompt", "reward"))
    shape = (len(contenders), len(prompts), -1, len(rewards))
    try:
        scores = np.array(found["score"]).reshape(shape)
        seeds = np.array(found["seed"]).reshape(shape)[0, :, :, 0]
        apart = np.array(distances, dtype=np.float64).reshape(shape)[:, :, :1, 0]
    except ValueError as error:
        raise DataError("scores_invalid", f"{path.name}: some images or scores are missing") from error
    drawn = {
        name: Drawn(
            {reward: np.ascontiguousarray(scores[number, :, :, place]) for place, reward in enumerate(rewards)},
            None if np.isnan(apart[number]).any() else np.ascontiguousarray(apart[number]),
            np.empty((0, scores.shape[2], 0, 0, 3), np.uint8),
        )
        for number, name in enumerate(contenders)
    }
    models = dict(zip(found["contender"], found["model_sha256"], strict=True))
    judges = dict(zip(found["reward"], found["reward_sha256"], strict=True))
    return ScoreTable(rules, prompts, tuple(tuple(map(int, one)) for one in seeds), drawn, models, judges)


def image_hashes(path: Path) -> dict[tuple[str, int, int], tuple[str, dict[str, float]]]:
    """Of a table that has been read: hash and scores of every image, by contender, place of the prompt, and seed."""
    found: dict[tuple[str, int, int], tuple[str, dict[str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        key = (row["contender"], row["prompt_index"], row["seed"])
        found.setdefault(key, (row["image_sha256"], {}))[1][row["reward"]] = row["score"]
    return found
