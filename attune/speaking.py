"""What every command that speaks to a server has in common: `--url`, `--api-key`, and a client for as long as it runs."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from attune.client import DEFAULT_URL, Client

P = ParamSpec("P")
R = TypeVar("R")

Url = Annotated[str, typer.Option("--url", envvar="ATTUNE_URL", help="Address of the server.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="ATTUNE_API_KEY", show_envvar=True, help="Key of a project, where the server asks for one."
    ),
]


def with_client(command: Callable[Concatenate[Client, P], R]) -> Callable[..., R]:
    """The command with `--url` and `--api-key` beside its own options; its first argument is the client they give."""

    @functools.wraps(command)
    def run(*args: Any, url: str, api_key: str | None, **kwargs: Any) -> R:
        with Client(url, api_key=api_key) as client:
            return command(client, *args, **kwargs)

    _, *own = inspect.signature(command).parameters.values()
    shared = [_option("url", Url, DEFAULT_URL), _option("api_key", Key, None)]
    run.__signature__ = inspect.Signature([*own, *shared])  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
    return run


def _option(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
