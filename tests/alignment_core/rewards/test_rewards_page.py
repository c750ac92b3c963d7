"""What `docs/rewards.md` shows is what the spec takes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from alignment_core.spec import RewardSpec

PAGE = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")


def examples() -> Iterator[Any]:
    for block in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL):
        text = block.strip()
        while text:
            found, end = json.JSONDecoder().raw_decode(text)
            yield found
            text = text[end:].lstrip()


def test_every_example_is_a_reward() -> None:
    found = [TypeAdapter[RewardSpec](RewardSpec).validate_python(example) for example in examples()]
    expected = {"pick_score", "hpsv2.1", "image_reward", "aesthetic", "weighted_sum", "remote"}
    assert {reward.type for reward in found} == expected


@pytest.mark.parametrize("member", get_args(get_args(RewardSpec)[0]))
def test_every_reward_has_its_row(member: type) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    kind = member.model_fields["type"].default  # type: ignore[attr-defined]
    assert [row for row in rows if f"`{kind}`" in row.split("|")[1]]
