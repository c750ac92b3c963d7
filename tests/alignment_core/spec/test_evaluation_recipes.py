"""The recipes of docs/evaluations.md are specs that would be taken, and the page names each of them."""

from pathlib import Path

import pytest

from alignment_core.spec import ProofSpec

DOCS = Path(__file__).parents[3] / "docs"
RECIPES = sorted((DOCS / "evaluations").glob("*.json"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_spec_and_stands_on_the_page(recipe: Path) -> None:
    spec = ProofSpec.model_validate_json(recipe.read_bytes())
    assert spec.anchor_name == "base"
    assert f"(evaluations/{recipe.name})" in (DOCS / "evaluations.md").read_text(encoding="utf-8")


def test_the_page_names_no_recipe_that_is_not_there() -> None:
    page = (DOCS / "evaluations.md").read_text(encoding="utf-8")
    assert page.count("(evaluations/") == len(RECIPES) == 5
