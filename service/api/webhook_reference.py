"""The `webhooks` of the OpenAPI document: what a receiver is sent for each type of event, with its headers and an example."""

from typing import Any, get_args

from service.api.schemas.webhook_examples import EXAMPLES
from service.store.webhook_events import WebhookPayload

HEADERS = {
    "webhook-id": (
        "Of the delivery: the same whenever it is sent again. Answer one that you know with 200.",
        "dlv_...",
    ),
    "webhook-timestamp": ("Seconds since 1970 at which this try was made.", "1763632932"),
    "webhook-signature": (
        "`v1,` and the base64 of HMAC-SHA256 under the secret of `ID.TIMESTAMP.BODY`; two of them, with a space between, while a "
        "secret is rotated.",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
}
ANSWERS = {
    "2XX": {"description": "Taken. Everything else is tried again, for a day."},
    "410": {"description": "Not wanted any more: the webhook is disabled."},
    "429": {"description": "Later: `Retry-After` says when, here and with 503."},
}


def webhooks_section() -> dict[str, Any]:
    """An entry for each type of event, by its name."""
    return {name: {"post": _operation(name, model)} for model in _models() for name in _types_of(model)}


def _models() -> tuple[Any, ...]:
    union, *_ = get_args(WebhookPayload)
    return get_args(union)


def _types_of(model: Any) -> tuple[str, ...]:
    return get_args(model.model_fields["type"].annotation)


def _operation(name: str, model: Any) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "operationId": f"on_{name.replace('.', '_')}",
        "summary": name,
        "description": model.__doc__,
        "tags": ["webhooks"],
        "security": [],
        "parameters": [
            {
                "name": header,
                "in": "header",
                "required": True,
                "description": description,
                "schema": {"type": "string"},
                "example": example,
            }
            for header, (description, example) in HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": EXAMPLES[name]}},
        },
        "responses": ANSWERS,
    }
