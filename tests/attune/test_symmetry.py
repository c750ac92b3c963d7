"""What the API offers, the client and the command line offer too, and docs/clients.md says under which name.

Every method and every command is called once against a real service that holds one of everything; what arrives there is noted.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.testclient import TestClient
from typer.testing import CliRunner

from alignment_core.events import TrackingFileWritten
from attune.cli import commands
from attune.client import Client
from service.main import create_app
from service.store import events, keys, leases, projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from tests.attune.calls import CALLS, Known, called, methods_of
from tests.attune.commands import COMMANDS, WITHOUT_A_SERVER, hurrying
from tests.service.api.live import serving
from tests.service.api.seeds import settings_in, sow
from tests.service.api.world import Api, bearer

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
ROW = re.compile(r"^\| `([A-Z]+ /[^`]*)` \| (.*?) \| ?(.*?) ?\|$", flags=re.MULTILINE)
NAME = re.compile(r"`([^`]+)`")


@dataclass
class Listening:
    """The app, and what it was asked."""

    app: Any
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.asked.append((scope["method"], scope["path"]))
        await self.app(scope, receive, send)


@dataclass
class Service:
    url: str
    key: str
    known: Known
    operations: list[str]
    listening: Listening
    api: Api

    def heard(self) -> set[str]:
        """The operations that were asked for since the last time, as `GET /v1/jobs/{job_id}`."""
        found = {self._operation(method, path) for method, path in self.listening.asked}
        self.listening.asked.clear()
        return found

    def _operation(self, method: str, path: str) -> str:
        fitting = [one for one in self.operations if _fits(one, method, path)]
        assert fitting, f"{method} {path} is no operation of the document"
        return min(fitting, key=lambda one: one.count("{"))


def _fits(operation: str, method: str, path: str) -> bool:
    known_method, template = operation.split(" ")
    parts = re.split(r"(\{\w+\})", template)
    pattern = "".join((".+" if one == "{path}" else "[^/]+") if one[:1] == "{" else re.escape(one) for one in parts)
    return method == known_method and re.fullmatch(pattern, path) is not None


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    values = settings_in(tmp_path)
    migrate(values.resolved_database_url)
    app = create_app(values)
    key, _ = projects.create_key(app.state.parts.store, DEFAULT_PROJECT_ID, "symmetry")
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        api = Api(client)
        known = sow(api)
        known["session_id"] = client.post("/v1/sessions", headers=bearer(api)).json()["id"]
        client.cookies.clear()
        known |= {"logged_id": logged_job(api), "waiting_id": api.new_job()}
        paths = client.get("/openapi.json").json()["paths"]
        operations = [f"{method.upper()} {path}" for path, found in paths.items() for method in found]
        listening = Listening(app)
        with serving(listening) as url:  # pyright: ignore[reportArgumentType]
            yield Service(url, key, known, operations, listening, api)


def logged_job(api: Api) -> str:
    """A job whose attempt has written a file for TensorBoard."""
    job_id, name = api.new_job(), "events.out.tfevents.1"
    attempt = api.claim(job_id)
    key = keys.tensorboard_key(DEFAULT_PROJECT_ID, job_id, attempt, name)
    stored = api.keep(name, key, b"events").model_copy(update={"crc32": zlib.crc32(b"events")})
    events.record_event(api.parts.store, job_id, attempt, TrackingFileWritten(path=f"tensorboard/{name}"), [stored])
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    return job_id


def rows_of_page() -> dict[str, tuple[set[str], set[str]]]:
    """By operation: the methods and the commands that the page names."""
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        operation: (set(NAME.findall(methods)), {one.removeprefix("attune ") for one in NAME.findall(sending)})
        for operation, methods, sending in found
    }


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    if not (inner := getattr(command, "commands", None)):
        yield " ".join(words)
    for name, one in (inner or {}).items():
        yield from leaves(one, (*words, name))


def document(tmp_path: Path) -> set[str]:
    paths = create_app(settings_in(tmp_path)).openapi()["paths"]
    return {f"{method.upper()} {path}" for path, found in paths.items() for method in found}


def test_the_page_has_every_operation_method_and_command_there_is_and_no_other(tmp_path: Path) -> None:
    rows = rows_of_page()
    assert set(rows) == document(tmp_path)
    named = {name for methods, _ in rows.values() for name in methods}
    with Client("http://127.0.0.1:1") as client:
        assert named == methods_of(client) == set(CALLS)
    sending = {command for _, commands_ in rows.values() for command in commands_}
    assert sending == set(COMMANDS)
    assert sending | WITHOUT_A_SERVER == set(leaves(typer.main.get_command(commands)))


def test_where_no_method_is_the_page_says_why() -> None:
    cells = {operation: cell for operation, cell, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    without = {operation for operation, (methods, _) in rows_of_page().items() if not methods}
    assert {operation for operation in without if not cells[operation].startswith("for ")} == set()
    assert len(without) < 10


@pytest.mark.slow
def test_every_method_sends_what_the_page_says(service: Service, tmp_path: Path) -> None:
    sent: dict[str, set[str]] = {one: set() for one in service.operations}
    with Client(service.url, api_key=service.key) as client:
        for name, call in CALLS.items():
            called(call, client, service.known, tmp_path)
            heard = service.heard()
            assert heard, f"{name} asks for nothing"
            for operation in heard:
                sent[operation].add(name)
    assert {operation: methods for operation, (methods, _) in rows_of_page().items()} == sent


@pytest.mark.slow
def test_every_command_sends_what_the_page_says(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner, environment = CliRunner(), {"ATTUNE_URL": service.url, "ATTUNE_API_KEY": service.key}
    rows = rows_of_page()
    with hurrying(service.api.parts.store):
        for command, arguments in COMMANDS.items():
            words = [*command.split(" "), *arguments(service.known, tmp_path)]
            done = runner.invoke(commands, words, env=environment)
            missing = {operation for operation, (_, named) in rows.items() if command in named} - service.heard()
            assert not missing, f"attune {' '.join(words)}: {done.output} {done.exception!r} sent no {missing}"
