"""Webhooks of the caller's project, and the log of what was sent to them.

All of it asks for the scope `admin`: a webhook goes on sending what happens in a project, to an address of its maker's choice, after the
key that made it is revoked. Addresses often hold a token, so looking asks for it too.
"""

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Path, Query, Response

from alignment_core.addresses import is_public, literal_of
from service.api.context import Parts, PartsDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.deleted import Deleted
from service.api.schemas.webhooks import Delivery, NewWebhook, RotateSecretRequest, Webhook, WebhookRequest
from service.auth import CallerDep, ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.scopes import needs
from service.store import deliveries, webhooks
from service.store.ids import is_id
from service.store.records.webhooks import DeliveryRecord, DeliveryState, WebhookRecord
from service.store.webhook_secrets import Sealer, new_secret

router = api_router(
    prefix="/v1/webhooks", tags=["webhooks"], responses=problems(401, 403, 422, 500, 503), dependencies=[needs("admin")]
)

WebhookPath = Annotated[str, Path(description="Id of a webhook.", examples=["whk_01kaf0s2t4v6x8z0b2d4f6h8k0"])]
DeliveryPath = Annotated[str, Path(description="Id of a delivery.", examples=["dlv_01kaf0s6t8v0x2z4b6d8f0h2k4"])]
LOCATION = {201: {"headers": {"Location": {"description": "Where the webhook is.", "schema": {"type": "string"}}}}}
NO_SUCH = missing("webhook", "whk")
NO_SUCH_DELIVERY = missing("delivery", "dlv")
TOO_MANY = problem(
    409, "too_many_webhooks", "this project has 20 webhooks, the most that it may", when="The project has its most"
)
OFF = problem(
    409,
    "webhook_disabled",
    "webhook 'whk_01kaf0s2t4v6x8z0b2d4f6h8k0' is disabled; enable it first",
    when="The webhook is disabled",
)


def _webhook(webhook_id: WebhookPath, project_id: ProjectDep, parts: PartsDep) -> WebhookRecord:
    found = webhooks.get(parts.store, project_id, webhook_id) if is_id(webhook_id) else None
    if found is None:
        raise not_found("webhook", webhook_id)
    return found


WebhookDep = Annotated[WebhookRecord, Depends(_webhook)]


def _delivery(delivery_id: DeliveryPath, webhook: WebhookDep, parts: PartsDep) -> DeliveryRecord:
    found = None
    if is_id(delivery_id):
        found = deliveries.get(parts.store, webhook.project_id, webhook.id, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found


DeliveryDep = Annotated[DeliveryRecord, Depends(_delivery)]


@router.post(
    "",
    status_code=201,
    summary="Make a webhook",
    response_description="The webhook, with its secret for the only time",
    responses={**LOCATION, **TOO_MANY, **problems(400, 413)},
)
def create_webhook(body: WebhookRequest, caller: CallerDep, parts: PartsDep, response: Response) -> NewWebhook:
    """Have events of this project posted to an address, signed after the Standard Webhooks specification.

    The secret is in this answer and nowhere else; for that reason an `Idempotency-Key` is not looked at here.
    """
    _check_address(parts, body.url)
    secret, sealer = new_secret(), _sealer(parts)
    most = parts.settings.webhooks_per_project
    try:
        made = webhooks.create(
            parts.store,
            project_id=caller.project_id,
            url=body.url,
            sealed_secret=sealer.seal(secret),
            most=most,
            event_types=body.events,
            description=body.description,
            enabled=body.enabled,
        )
    except webhooks.TooMany as error:
        detail = f"this project has {most} webhooks, the most that it may"
        raise ApiError(409, "too_many_webhooks", detail) from error
    response.headers["Location"] = f"{parts.base_url}/v1/webhooks/{made.id}"
    return NewWebhook.made(secret, made)


@router.get("", summary="List webhooks")
def list_webhooks(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[Webhook]:
    """The project's webhooks, disabled ones too, newest first."""
    page = webhooks.list_webhooks(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([Webhook.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{webhook_id}", summary="Look at a webhook", responses=NO_SUCH)
def get_webhook(webhook: WebhookDep) -> Webhook:
    """Where it leads, what it is told, and whether it answers."""
    return Webhook.of(webhook)


@router.put("/{webhook_id}", summary="Change a webhook", responses={**NO_SUCH, **problems(400, 413)})
def change_webhook(webhook: WebhookDep, body: WebhookRequest, parts: PartsDep) -> Webhook:
    """Put another address, other events or another description in place, or turn it off and on. The secret stays.

    Enabling one that the service gave up on forgets its failures; what waits for it is sent then.
    """
    _check_address(parts, body.url)
    changed = webhooks.change(
        parts.store,
        webhook.project_id,
        webhook.id,
        url=body.url,
        event_types=body.events,
        description=body.description,
        enabled=body.enabled,
    )
    if changed is None:
        raise not_found("webhook", webhook.id)
    return Webhook.of(changed)


@router.delete("/{webhook_id}", summary="Delete a webhook", responses=NO_SUCH)
def delete_webhook(webhook: WebhookDep, parts: PartsDep) -> Deleted:
    """Remove a webhook with its deliveries; what is on its way may still arrive."""
    if webhooks.delete(parts.store, webhook.project_id, webhook.id) is None:  # somebody else was faster
        raise not_found("webhook", webhook.id)
    return Deleted(id=webhook.id, object="webhook")


@router.post(
    "/{webhook_id}/rotate",
    status_code=200,
    summary="Put a new secret in a webhook's place",
    response_description="The webhook, with its new secret for the only time",
    responses={**NO_SUCH, **problems(400, 413)},
)
def rotate_webhook_secret(webhook: WebhookDep, body: RotateSecretRequest, parts: PartsDep) -> NewWebhook:
    """Sign with another secret from now on, and with the old one beside it for `grace_seconds`."""
    secret, sealer = new_secret(), _sealer(parts)
    grace = timedelta(seconds=body.grace_seconds)
    changed = webhooks.rotate_secret(parts.store, webhook.project_id, webhook.id, sealer.seal(secret), grace)
    if changed is None:
        raise not_found("webhook", webhook.id)
    return NewWebhook.made(secret, changed)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    summary="Test a webhook",
    response_description="The delivery of a `webhook.ping`",
    responses=NO_SUCH,
)
def test_webhook(webhook: WebhookDep, parts: PartsDep) -> Delivery:
    """Have a worker send a `webhook.ping`, once, to a webhook that is disabled too; the delivery says what came of it."""
    sent = deliveries.ping(parts.store, webhook.project_id, webhook.id)
    if sent is None:
        raise not_found("webhook", webhook.id)
    return Delivery.of(sent)


@router.get("/{webhook_id}/deliveries", summary="List deliveries", responses=NO_SUCH)
def list_deliveries(
    webhook: WebhookDep,
    parts: PartsDep,
    paging: PagingDep,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
) -> Page[Delivery]:
    """What was sent to a webhook or is to be, newest first, with every try; kept for as long as the server's owner says."""
    page = deliveries.list_deliveries(
        parts.store, webhook.project_id, webhook.id, state=state, after_id=paging.after, limit=paging.limit
    )
    return paging.page([Delivery.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{webhook_id}/deliveries/{delivery_id}", summary="Look at a delivery", responses=NO_SUCH_DELIVERY)
def get_delivery(delivery: DeliveryDep) -> Delivery:
    """One event for a webhook, and what came of each try."""
    return Delivery.of(delivery)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    summary="Send a delivery again",
    response_description="The delivery, which is due now",
    responses={**NO_SUCH_DELIVERY, **OFF},
)
def redeliver(delivery: DeliveryDep, parts: PartsDep) -> Delivery:
    """Send it again at once, whatever came of it, with all its tries before it. Its `webhook-id` stays."""
    try:
        again = deliveries.redeliver(parts.store, delivery.project_id, delivery.webhook_id, delivery.id)
    except deliveries.WebhookOff as error:
        detail = f"webhook {delivery.webhook_id!r} is disabled; enable it first"
        raise ApiError(409, "webhook_disabled", detail) from error
    if again is None:
        raise not_found("delivery", delivery.id)
    return Delivery.of(again)


def _sealer(parts: Parts) -> Sealer:
    sealer = parts.settings.webhooks_sealer
    if sealer is None:
        detail = "this server has no ATTUNE_WEBHOOKS_KEY, which the secrets of webhooks are encrypted with"
        raise ApiError(503, "webhooks_unavailable", detail)
    return sealer


def _check_address(parts: Parts, url: str) -> None:
    """What can be told without looking the name up, which workers do before each try."""
    if parts.settings.webhooks_allow_private:
        return
    split = urlsplit(url)
    address = literal_of(split.hostname or "")
    if split.scheme != "https":
        raise _refused("https_needed", "expected https")
    if address is not None and not is_public(address):
        raise _refused(
            "private_address", f"{address} is no address of the internet; this server lets webhooks have no other"
        )


def _refused(code: str, message: str) -> ApiError:
    return invalid_request([FieldProblem(pointer="/url", code=code, message=message)])
