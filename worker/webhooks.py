"""Sends what the outbox holds for webhooks. Every worker does, from threads of its own, so that no process of its own could be missing.

The workers and not the API, which may have no network. Claims are leases in the database (`service.store.deliveries`): any number of
workers send side by side, and what one that dies was at is sent by another.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import structlog
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from service.store import deliveries
from service.store.deliveries import Answer
from service.store.records.webhooks import DeliveryClaim
from service.store.webhook_secrets import Sealer, SecretLost
from worker.parts import WorkerParts
from worker.traces import Errand
from worker.webhook_post import Reach, post

AT_ONCE = 16  # in one worker
LEASE_MARGIN_SECONDS = 30.0  # beyond the request's own time, after which nothing is sent any more

log = structlog.get_logger()


def start_sending(parts: WorkerParts) -> threading.Thread:
    """Send what is due, now and every `webhooks_poll_seconds`, until the worker shuts down."""
    thread = threading.Thread(target=_send_until_shutdown, args=(parts,), name="webhooks", daemon=True)
    thread.start()
    return thread


def send_due(parts: WorkerParts) -> int:
    """Send what is due, one after the other; how many requests that were."""
    sent = 0
    while (claimed := _claim(parts)) is not None:
        send(parts, claimed)
        sent += 1
    return sent


def send(parts: WorkerParts, claimed: DeliveryClaim) -> None:
    """One try, and the note of it. Without the note it is due again when the lease ends."""
    settings = parts.settings
    reach = Reach(settings.webhooks_allow_private, settings.webhooks_timeout_seconds)
    with parts.traces.errand(_errand(claimed)) as told:
        answer = _answer(settings.webhooks_sealer, claimed, reach)
        disable_after = timedelta(days=settings.webhooks_disable_after_days)
        state = deliveries.record(parts.store, claimed, answer, disable_after)
        told(state or "lost", None if answer.is_good else str(answer.status or "no_answer"))
    log.info(
        "webhook_sent",  # never the address: it may hold a token
        webhook_id=claimed.webhook_id,
        delivery_id=claimed.id,
        attempt=claimed.attempt,
        host=urlsplit(claimed.url).hostname,
        status=answer.status,
        state=state,
    )


def _errand(claimed: DeliveryClaim) -> Errand:
    about = {"webhook_id": claimed.webhook_id}
    return Errand(
        "deliver",
        "delivery",
        claimed.id,
        claimed.attempt,
        claimed.project_id,
        claimed.created_at,
        claimed.traceparent,
        about,
    )


def _answer(sealer: Sealer | None, claimed: DeliveryClaim, reach: Reach) -> Answer:
    try:
        if sealer is None:
            raise SecretLost("the worker has no ATTUNE_WEBHOOKS_KEY")
        secrets = [sealer.open(one) for one in claimed.secrets]
    except SecretLost as error:
        log.error("webhook_secret_lost", webhook_id=claimed.webhook_id)
        return Answer(None, 0, str(error))
    return post(claimed.url, signed_headers(secrets, claimed.id, claimed.body), claimed.body, reach)


def signed_headers(secrets: Sequence[str], message_id: str, body: str) -> dict[str, str]:
    """Those of the specification, with a signature for each secret; the time is that of this try."""
    time = datetime.now(UTC)
    signatures = [Webhook(secret).sign(message_id, time, body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Attune-Webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(time.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _claim(parts: WorkerParts) -> DeliveryClaim | None:
    return deliveries.claim(parts.store, parts.settings.webhooks_timeout_seconds + LEASE_MARGIN_SECONDS)


def _send_until_shutdown(parts: WorkerParts) -> None:
    free = threading.BoundedSemaphore(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE, "webhook") as pool:
        while not parts.shutting_down.wait(parts.settings.webhooks_poll_seconds):
            try:
                _send_with(pool, free, parts)
            except Exception:
                log.exception("webhooks_not_sent")  # whatever it was: the next look may do better


def _send_with(pool: ThreadPoolExecutor, free: threading.BoundedSemaphore, parts: WorkerParts) -> None:
    """Claim as many as there are threads that have nothing to do."""
    while free.acquire(blocking=False):
        try:
            claimed = _claim(parts)
        except BaseException:
            free.release()
            raise
        if claimed is None:
            free.release()
            return
        pool.submit(_send_and_free, free, parts, claimed)


def _send_and_free(free: threading.BoundedSemaphore, parts: WorkerParts, claimed: DeliveryClaim) -> None:
    try:
        send(parts, claimed)
    except SQLAlchemyError as error:  # it is sent again, under the same id
        log.error("webhook_not_recorded", delivery_id=claimed.id, error=type(error).__name__)
    except Exception:
        log.exception("webhook_not_sent", delivery_id=claimed.id)
    finally:
        free.release()
