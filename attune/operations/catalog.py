"""What a spec may name."""

from typing import Literal

from attune.connection import Connected
from attune.resources.catalog import CatalogEntry


def models(client: Connected) -> list[CatalogEntry]:
    """The models that jobs may name."""
    return _catalog(client, "models")


def methods(client: Connected) -> list[CatalogEntry]:
    """The methods that jobs may ask for."""
    return _catalog(client, "methods")


def rewards(client: Connected) -> list[CatalogEntry]:
    """The rewards that methods and evaluations may use."""
    return _catalog(client, "rewards")


def _catalog(client: Connected, kind: Literal["models", "methods", "rewards"]) -> list[CatalogEntry]:
    answer = client.connection.request("GET", f"/v1/{kind}")
    return [CatalogEntry.model_validate(entry) for entry in answer["data"]]
