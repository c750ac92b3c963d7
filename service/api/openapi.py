"""The OpenAPI document: FastAPI's own, with the error schema, the events, and an example for every answer."""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter

from alignment_core.events import Event
from service.api.schemas.base import Resource
from service.api.schemas.datasets import DATASET_REPORT_EXAMPLE
from service.api.schemas.evaluation_examples import PROOF_REPORT_EXAMPLE
from service.api.schemas.runs import REPORT_EXAMPLE
from service.api.webhook_reference import webhooks_section
from service.cookies import CSRF_HEADER, NAME
from service.errors import Problem
from service.scopes import is_linkable, scope_of
from service.settings import Settings
from service.signed_links import PARAMETER
from service.store.webhook_events import WebhookPayload

TITLE = "Attune"
SUMMARY = "Aligns text-to-image diffusion models with human preferences, and proves it."
DESCRIPTION = """
Upload preference pairs, post a job, follow its events, download the aligned checkpoint and read the report that
compares it with the model it started from, on the same prompts and the same seeds.

**In four calls:** `POST /v1/datasets`, `POST /v1/jobs`, `GET /v1/jobs/{job_id}?wait=60`,
`GET /v1/checkpoints/{checkpoint_id}/download`.

* Times are RFC 3339 in UTC; ids are prefixed and sort by time.
* Unknown fields and parameters are refused. No GET changes anything.
* Every error is `application/problem+json`; look at its `code`, and at `errors` for the single fields.
* Lists take `after` and `limit`; a `Link` header points to the next page.
* A creating POST may carry an `Idempotency-Key`: sent twice, it creates once.
"""

TAGS = [
    {"name": "jobs", "description": "Alignment runs: what is asked for, and how far it is."},
    {"name": "sweeps", "description": "One job for each of several settings, and how they compare."},
    {"name": "evaluations", "description": "Any models against each other, on the same prompts and seeds."},
    {
        "name": "labeling",
        "description": "Images that people judge, and what they say of them: data to train on, or who wins blind.",
    },
    {"name": "runs", "description": "What a run says and leaves: events, metrics, samples, the report, logs."},
    {"name": "checkpoints", "description": "Trained weights, file by file or as one archive."},
    {
        "name": "aliases",
        "description": "`champion`, `candidate` and other names for checkpoints, each with the report that earned it.",
    },
    {"name": "datasets", "description": "Preference pairs: uploaded, checked, reported on."},
    {"name": "prompt sets", "description": "Lists of prompts that specs name instead of carrying them."},
    {"name": "weights", "description": "LoRAs to start from: uploaded, checked."},
    {
        "name": "uploads",
        "description": "Files in pieces, for connections that break: data sets, weights and prompt sets to be.",
    },
    {"name": "keys", "description": "Who may ask, and what: keys of the project, for its admins."},
    {"name": "sessions", "description": "What stands in for a key in a browser: sessions, and links to single files."},
    {"name": "audit", "description": "Who did what, for the project's admins."},
    {"name": "webhooks", "description": "Who is told of what happens, as it happens, and what came of telling them."},
    {"name": "retention", "description": "How long checkpoints stay: policies, pins, and what goes next."},
    {"name": "quotas", "description": "What the project may take, and what is left of it."},
    {"name": "catalog", "description": "What can be asked for here, with JSON Schema."},
    {"name": "health", "description": "For load balancers and dashboards. Never asks for a key."},
]

IN_A_BROWSER = {
    "Session": {
        "type": "apiKey",
        "in": "cookie",
        "name": NAME,
        "description": f"A session that `POST /v1/sessions` has opened; over HTTPS the cookie is called `__Host-{NAME}`. It may what "
        f"its key may. Everything but GET and HEAD asks for its `csrf_token` as `{CSRF_HEADER}` beside it.",
    },
    "Link": {
        "type": "apiKey",
        "in": "query",
        "name": PARAMETER,
        "description": "Part of an address that `POST /v1/links` has signed: for GET of one file or stream, for some minutes.",
    },
}

REF = "#/components/schemas/"


def openapi_of(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document of the app; made once, then kept."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
            separate_input_output_schemas=False,
        )
        schemas = document["components"]["schemas"]
        schemas |= _schemas(Problem) | _schemas(Event)
        # Stored events are not parsed again on their way out, so the model holds plain JSON; here is what it is.
        schemas["JobEvent"]["properties"]["data"] = {"$ref": REF + "Event"}
        schemas |= _schemas(WebhookPayload, "WebhookPayload")
        schemas["Delivery"]["properties"]["payload"] = {"$ref": REF + "WebhookPayload"}
        document["webhooks"] = webhooks_section()
        for schema in schemas.values():
            _require_tag(schema)
            _tell_object_defaults(schema)
        for name, example in _examples().items():  # FastAPI drops what is null, in examples too
            if name in schemas:
                schemas[name]["examples"] = [example]
        routes = _routes_of(app)
        document["components"]["securitySchemes"] |= IN_A_BROWSER
        for item in document["paths"].values():
            for operation in item.values():
                _add_examples(operation, schemas)
                _state_settings(operation, settings, routes[operation["operationId"]])
        document["info"]["license"] = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
        # without a public address: wherever the document came from
        document["servers"] = [{"url": settings.public_url or "/"}]
        app.openapi_schema = document
    return app.openapi_schema


def _routes_of(app: FastAPI) -> dict[str, APIRoute]:
    """The route of each operation, by its id."""
    found = iter_route_contexts(app.routes)
    return {one.unique_id: one.original_route for one in found if isinstance(one.original_route, APIRoute)}


def _state_settings(operation: dict[str, Any], settings: Settings, route: APIRoute) -> None:
    """What the operator decides: whether a key is asked for, and how long a page may be. A key's scope is told as its role."""
    scope = scope_of(route)
    security = operation.setdefault("security", [])  # an empty list says: never a key
    for scheme in security:
        scheme["ApiKey"] = [scope]
    if security:
        security += [{"Session": [scope]}, *([{"Link": []}] if is_linkable(route) else [])]
    if security and not settings.api_keys_required:
        security.append({})  # a key, or nothing
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "limit":
            parameter["schema"]["maximum"] = settings.max_list_limit


def _below(model: type[Resource]) -> Iterator[type[Resource]]:
    for inner in model.__subclasses__():
        yield inner
        yield from _below(inner)


def _examples() -> dict[str, Any]:
    """The example of every model that is answered, by its name in the document."""
    models = list(_below(Resource))
    own = {model.__name__: example for model in models for example in model.model_json_schema().get("examples", [])}
    return own | {
        "EvaluationReport": REPORT_EXAMPLE,
        "ProofReport": PROOF_REPORT_EXAMPLE,
        "DatasetReport": DATASET_REPORT_EXAMPLE,
    }


def _require_tag(schema: dict[str, Any]) -> None:
    """A `type` that chooses a member of a union has a default in Python, and must be written in JSON."""
    tag = schema.get("properties", {}).get("type", {})
    if "const" in tag:
        tag.pop("default", None)
        schema["required"] = sorted({"type", *schema.get("required", [])})


def _tell_object_defaults(schema: dict[str, Any]) -> None:
    """Generators of clients drop every model that has an object as a default, so such a default is told in words."""
    for one in _schemas_in(schema):
        if isinstance(one.get("default"), dict):
            default = f"Left out, it is `{json.dumps(one.pop('default'))}`."
            one["description"] = f"{one['description']} {default}" if "description" in one else default


def _schemas_in(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a schema, itself included; examples are data and no schemas."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key not in ("default", "example", "examples", "const", "enum"):
                yield from _schemas_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _schemas_in(value)


def _schemas(model: Any, name: str = "Event") -> dict[str, Any]:
    """The JSON Schemas of a model and of everything it refers to, by name."""
    schema = TypeAdapter(model).json_schema(mode="serialization", ref_template=REF + "{model}")
    return schema.pop("$defs", {}) | {schema.get("title", name): schema}


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if "example" not in content and (example := _example(content["schema"], schemas)) is not None:
                content["example"] = example


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """The example of the model that a schema names; of a page, one that holds the example of its entries; of a choice, that of its first."""
    named = schemas.get(schema.get("$ref", "").removeprefix(REF), schema)
    if "examples" in named:
        return named["examples"][0]
    if "anyOf" in named:
        return _example(named["anyOf"][0], schemas)
    if (entries := named.get("properties", {}).get("data", {}).get("items")) is not None:
        entry = _example(entries, schemas)
        return {
            "object": "list",
            "data": [entry],
            "has_more": False,
            "first_id": entry["id"],
            "last_id": entry["id"],
        }
    return None
