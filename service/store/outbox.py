"""The outbox: what webhooks are told is written in the transaction that changes what it tells of, and sent by a worker afterwards.

So nothing is told that was rolled back, and nothing that was committed is lost with the process. `announcements.py`
has what is told; where a project has no webhook for it, one look at an index is all it costs.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.ids import new_id
from service.store.models import Webhook, WebhookDelivery
from service.store.traces import current_traceparent
from service.store.webhook_events import EventType, Payload, Pinged, PingPayload


def put(
    session: Session, project_id: str, event_type: EventType, time: datetime, payload: Callable[[], Payload]
) -> None:
    """A delivery for each webhook of the project that wants the event; `payload` is asked for where there is one."""
    if wanting := receivers(session, project_id, event_type):
        body = payload().model_dump_json()
        session.add_all(delivery(one, project_id, event_type, body, time) for one in wanting)


def delivery(webhook_id: str, project_id: str, event_type: str, body: str, time: datetime) -> WebhookDelivery:
    """One that is due at once."""
    return WebhookDelivery(
        id=new_id("dlv"),
        webhook_id=webhook_id,
        project_id=project_id,
        type=event_type,
        body=body,
        state="pending",
        attempt=0,
        num_failures=0,
        tries=[],
        due_at=time,
        traceparent=current_traceparent(),
        created_at=time,
    )


def receivers(session: Session, project_id: str, event_type: EventType) -> Sequence[str]:
    """Kept from being deleted until this transaction ends: a webhook that goes must not take the end of a job with it."""
    wanted = sa.select(Webhook.id, Webhook.event_types).where(Webhook.project_id == project_id, Webhook.enabled)
    held = wanted.order_by(Webhook.id).with_for_update(read=True, key_share=True)
    return [one.id for one in session.execute(held) if one.event_types is None or event_type in one.event_types]


def ping(webhook: Webhook, time: datetime) -> WebhookDelivery:
    """The delivery of a test."""
    payload = PingPayload(timestamp=time, data=Pinged(webhook_id=webhook.id))
    return delivery(webhook.id, webhook.project_id, payload.type, payload.model_dump_json(), time)
