"""Commands that the pages show are commands that there are, with the options that they show."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from attune.cli import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "demo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"(?:^|`|\$\(|bin/)attune ([a-z][^`\n#]*)", flags=re.MULTILINE)


def wrong_in(page: str) -> list[str]:
    """What a page shows and the command does not have."""
    root = typer.main.get_command(commands)
    return [f"attune {shown}: {wrong}" for shown in SHOWN.findall(page) if (wrong := unknown_in(root, shown.split()))]


def unknown_in(command: Any, words: list[str]) -> str | None:
    """The first word that is no command, or the first option that the command does not take."""
    if subcommands := getattr(command, "commands", None):
        first, *rest = words or [""]
        # `job|dataset delete` stands for two commands
        found = [unknown_in(subcommands[name], rest) if name in subcommands else name for name in first.split("|")]
        return next((one for one in found if one is not None), None)
    taken = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    options = [re.match(r"--[\w-]+", word) for word in words]
    return next((option[0] for option in options if option and option[0] not in taken), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there(page: Path) -> None:
    assert wrong_in(page.read_text(encoding="utf-8")) == []


def test_a_command_and_an_option_that_are_not_there_are_found() -> None:
    page = "see `attune jobs watch`\nattune job watch job_...\nattune up --prot 1\n`attune job|dataset delete`"
    assert wrong_in(page) == ["attune jobs watch: jobs", "attune up --prot 1: --prot"]
