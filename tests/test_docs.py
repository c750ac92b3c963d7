"""What the documentation says of the tree is what is there, and the import law forgets no module."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CORE = ROOT / "alignment_core"
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


def test_every_module_of_the_core_is_in_the_designs_tree() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    patterns = [Path(name).name for name in tree_of(ROOT / "docs" / "design.md") if name.startswith("alignment_core/")]
    modules = [path.name for path in CORE.glob("*.py") if path.name != "__init__.py"]
    assert [
        name for name in sorted(modules) if f"{name}" not in text and not any(Path(name).match(one) for one in patterns)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_the_import_law_knows_every_module_of_the_core() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    laws = {contract["name"]: contract for contract in contracts}
    pure = set(laws["the pure-data modules import pydantic alone"]["source_modules"])
    hidden = set(laws["the service and the worker see the library's pure data only"]["forbidden_modules"])
    rooms = {
        f"alignment_core.{path.stem}"
        for path in CORE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"alignment_core.__init__", "alignment_core.__main__"} == pure | hidden
    assert pure & hidden == set()
