"""The table of defaults in docs/methods.md is what the spec says, and leaves nothing out."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment_core.spec import JobSpec
from tests.alignment_core.spec.test_spec_recipes import ONLINE, REQUIRED

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
ONLINE_METHODS = ["tailorpo", *ONLINE]
GROUPS = {"all": list(REQUIRED), "online": ONLINE_METHODS, "offline": [m for m in REQUIRED if m not in ONLINE_METHODS]}
PARTS = ("method", "training", "adapter", "reference", "timesteps")
VARIANTS: list[dict[str, Any]] = [
    {},
    {"adapter": {"type": "full"}},
    *[{"reference": {"type": kind}} for kind in ("hard_copy", "ema", "drift_controlled")],
    *[
        {"timesteps": {"type": "timestep_aware", **part}}
        for part in (
            {},
            {"sampler": {"type": "discounted"}},
            {"sampler": {"type": "logit_normal"}},
            {"loss_weight": {"type": "variance"}},
        )
    ],
]
MOVING = ["start", "reg_mode", "lambda_1", "reg_units", "offload_initial"]  # the same for every reference that moves


@dataclass(frozen=True)
class Row:
    methods: list[str]
    path: str
    condition: dict[str, Any]
    ours: Any


def value_of(text: str) -> Any:
    """JSON, or the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def methods_of(cell: str) -> list[str]:
    if cell.startswith("all but "):
        without = cell.removeprefix("all but ").split(", ")
        assert set(without) <= set(REQUIRED)
        return [method for method in REQUIRED if method not in without]
    return [method for name in cell.split(", ") for method in GROUPS.get(name, [name])]


def rows() -> Iterator[Row]:
    text = PAGE.read_text()
    table = text.split("## Every default, beside the published one")[1].split("\n## ")[0]
    for line in re.findall(r"^\| (?!method |-)(.*) \|$", table, re.MULTILINE):
        who, setting, ours, published, source = line.split(" | ")
        assert published
        assert source
        path, *condition = re.findall(r"`([^`]*)`", setting)
        pairs = dict(part.split(": ", 1) for part in condition)
        yield Row(
            methods_of(who), path, {key: value_of(told) for key, told in pairs.items()}, value_of(ours.strip("`"))
        )


ROWS = list(rows())


def resolved(method: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The resolved spec of the required fields and these; a key may be a dotted path."""
    spec: dict[str, Any] = {
        "model": {"type": "local", "path": "model"},
        "method": {"type": method, **REQUIRED[method]},
    }
    for path, value in changes.items():
        *parents, last = path.split(".")
        inside = spec
        for name in parents:
            inside = inside.setdefault(name, {})
        inside[last] = value
    return JobSpec.model_validate(spec).resolved().model_dump(mode="json")


def at(spec: Any, path: str) -> Any:
    for name in path.split("."):
        spec = spec[name]
    return spec


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from leaves(inside, f"{path}.{name}" if path else name)
    else:
        yield path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.path} {row.methods[0]} {row.condition}")
def test_ours_is_what_the_spec_stands_for(row: Row) -> None:
    for method in row.methods:
        is_number = isinstance(row.ours, int | float)
        assert at(resolved(method, row.condition), row.path) == (pytest.approx(row.ours) if is_number else row.ours), (
            method
        )


def is_told(method: str, path: str, reference: str | None) -> bool:
    about = [row for row in ROWS if method in row.methods and (row.path == path or row.path.startswith(f"{path}."))]
    if reference is None or not path.startswith("reference.") or path.split(".")[1] in MOVING:
        return bool(about)
    kinds = [row.condition.get("reference.type") or row.condition["reference"]["type"] for row in about]
    is_shared = path.split(".")[1] in ("ref_store", "ref_rank_cap")
    return reference in kinds or (is_shared and bool(kinds))


@pytest.mark.parametrize("method", REQUIRED)
def test_no_default_of_a_method_is_left_out(method: str) -> None:
    moves = method not in ("mapo", "ddpo")
    missing = set()
    for changes in VARIANTS:
        if "reference" in changes and not moves:
            continue
        spec = resolved(method, changes)
        typed = {*(f"method.{name}" for name in [*REQUIRED[method], "type"]), "training.learning_rate_source"}
        for path in (path for part in PARTS for path in leaves(spec[part], part)):
            asked = path in ("adapter.type", "reference.type", "timesteps.type") and changes
            if any(path == one or path.startswith(f"{one}.") for one in typed) or asked:
                continue
            if not is_told(method, path, changes.get("reference", {}).get("type")):
                missing.add(path)
    assert not missing


def test_the_table_is_read() -> None:
    assert len(ROWS) > 120
    assert {method for row in ROWS for method in row.methods} == set(REQUIRED)
