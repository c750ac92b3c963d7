"""What the operator reads is what the code reads."""

from pathlib import Path

import pytest

from service.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_deployment_guide_with_its_meaning(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert f"`ATTUNE_{name.upper()}`" in DOCS.read_text(encoding="utf-8")
    assert description in DOCS.read_text(encoding="utf-8")
