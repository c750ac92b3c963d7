"""Clients made by the generators that people use are whole, and work against a real server.

The generators come from PyPI and npm, at pinned versions, into `build/generators`.
"""

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.attune.test_cli_jobs import api, url  # noqa: F401  fixtures
from tests.service.api.world import Api

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "tests" / "generators"
OPTIONAL = "--default-non-nullable=false"  # what has a default need not be sent
PYTHON_GENERATOR = "openapi-python-client==0.29.1"
CONFIG = "project_name_override: attune-client\ncontent_type_overrides:\n  image/png: application/octet-stream\n"
CONFIG += "  image/jpeg: application/octet-stream\n  application/offset+octet-stream: application/octet-stream\n  application/zip: application/octet-stream\n"


@pytest.fixture(scope="module")
def folder() -> Path:
    path = ROOT / "build" / "generators"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def document(api: Api, tmp_path: Path) -> Path:  # noqa: F811
    path = tmp_path / "openapi.json"
    path.write_text(api.client.get("/openapi.json").text)
    return path


def run(*command: str | Path, cwd: Path) -> str:
    """The program sees its own folder on PATH first: the Python generator calls the `ruff` that pip put beside it."""
    words = [str(part) for part in command]
    environment = os.environ | {"PATH": os.pathsep.join((str(Path(words[0]).parent), os.environ["PATH"]))}
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=600, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def python_generator(folder: Path) -> Path:
    tools = folder / "python"
    program = tools / "bin" / "openapi-python-client"
    if not program.exists():
        venv.create(tools, with_pip=True, clear=True)
        run(tools / "bin" / "python", "-m", "pip", "install", "--quiet", PYTHON_GENERATOR, cwd=folder)
    return program


@pytest.fixture(scope="module")
def typescript(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on PATH")
    tools = folder / "typescript"
    tools.mkdir(exist_ok=True)
    for name in ("package.json", "tsconfig.json", "node.d.ts", "use.ts"):
        shutil.copy(SOURCES / name, tools)
    run(npm, "install", "--silent", "--no-audit", "--no-fund", cwd=tools)
    return tools


def test_a_python_client_is_made_without_a_warning_and_posts_a_job(
    api: Api,  # noqa: F811
    url: str,  # noqa: F811
    document: Path,
    python_generator: Path,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    said = run(
        *(python_generator, "generate", "--path", document, "--config", config, "--output-path", tmp_path / "made"),
        cwd=tmp_path,
    )
    assert "WARNING" not in said.upper()
    program = [python_generator.parent / "python", SOURCES / "use.py", url, api.ready_dataset()]
    answer = json.loads(run("env", f"PYTHONPATH={tmp_path / 'made'}", *program, cwd=tmp_path))
    assert (answer["status"], answer["reference"]) == ("queued", "ema")


def test_a_typescript_client_is_made_checked_and_posts_a_job(
    api: Api,  # noqa: F811
    url: str,  # noqa: F811
    document: Path,
    typescript: Path,
) -> None:
    tools = typescript / "node_modules" / ".bin"
    run(tools / "openapi-typescript", document, OPTIONAL, "--output", "schema.d.ts", cwd=typescript)
    run(tools / "tsc", cwd=typescript)
    answer = json.loads(run("node", "use.js", url, api.ready_dataset(), cwd=typescript))
    assert (answer["status"], answer["reference"]) == ("queued", "ema")


def test_a_strict_linter_finds_no_fault_in_the_document(document: Path, typescript: Path) -> None:
    config = typescript / "redocly.yaml"
    # a health route answers everybody, and there is nothing that a caller could do wrong
    config.write_text("extends: [recommended]\nrules:\n  operation-4xx-response: off\n")
    linter = typescript / "node_modules" / ".bin" / "redocly"
    said = run(linter, "lint", document, "--config", config, "--format", "json", cwd=typescript)
    assert json.loads(said[said.index("{") : said.rindex("}") + 1])["problems"] == []
