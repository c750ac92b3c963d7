"""What the documentation says of the tree is what is there, and the import law forgets no module."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CORE = ROOT / "alignment_core"
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
ENTRY = re.compile(r"^( *)((?:[\w*.-]+(?:/[\w*-]+)*/?(?:  ?(?=[\w*.-]+[./]))?)+)(?:\s{2,}|$)")


def tree_of(page: Path) -> list[str]:
    """Paths of the first block under a heading that ends with `tree`; names of a line share its folder."""
    block = re.search(r"## .*tree\n+```\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert block is not None
    found, folder = [], ""
    for line in block.group(1).splitlines():
        if (entry := ENTRY.match(line)) is None or len(entry.group(1)) > 2:
            continue  # an empty line, or one that goes on with a description
        names = re.findall(r"[\w*-]+(?:/[\w*-]+)*/|[\w*-]*\.\w+", entry.group(2))
        if not entry.group(1):
            folder = names[0] if names and names[0].endswith("/") else ""
            found += names
        else:
            found += [folder + name for name in names]
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_everything_in_the_tree_is_there(page: str) -> None:
    named = tree_of(ROOT / page)
    assert len(named) > 10
    assert [name for name in named if not any(ROOT.glob(name.rstrip("/")))] == []


def test_every_room_of_the_core_is_in_the_designs_tree() -> None:
    named = {name for name in tree_of(ROOT / "docs" / "design.md") if name.startswith("alignment_core/")}
    rooms = {f"alignment_core/{path.name}" for path in CORE.glob("*.py") if path.name != "__init__.py"}
    rooms |= {f"alignment_core/{path.parent.name}/" for path in CORE.glob("*/__init__.py")}
    assert rooms - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_the_import_law_refuses_a_module_outside_its_layers(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("alignment_core", "service", "worker", "attune", "demo"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=_but_modules)
    (tmp_path / "alignment_core" / "stray.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        timeout=100,
    )
    assert done.returncode == 1
    assert "alignment_core.stray" in done.stdout


def _but_modules(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (name.endswith(".py") or (Path(folder) / name).is_dir())]
