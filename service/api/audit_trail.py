"""Around every request that may change something: the deed that the store writes into the audit log, and how it ended."""

from datetime import timedelta

import structlog
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.store import audit
from service.store.audit import Deed
from service.store.database import Store, now
from service.store.records.projects import Outcome

log = structlog.get_logger()

FIRST_REFUSAL, FORBIDDEN, FIRST_FAILURE = 400, 403, 500  # statuses
REMEMBERED = timedelta(minutes=1)
"""So long the row of what a key may not do stands for its repeats: else a key that may only read could fill the log."""


class AuditTrail:
    """Opens a deed for the request. `service.auth` says whose it is; then what came of it is written before the answer goes out."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        client = scope.get("client")  # as the server's own settings of proxies have it
        deed = Deed("", scope.get("state", {}).get("request_id"), client[0] if client else None)
        token = audit.current.set(deed)

        async def send_when_written(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._close(deed, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_when_written)
        except ClientDisconnect:  # nobody hears an answer, and what was changed is written with the change
            raise
        except Exception:
            await self._close(deed, FIRST_FAILURE)
            raise
        finally:
            audit.current.reset(token)

    async def _close(self, deed: Deed, status: int) -> None:
        """Write down what is not: a change is already, with the change."""
        if deed.project_id is not None and not (deed.is_recorded and status < FIRST_REFUSAL):
            await run_in_threadpool(self._write, deed, status)
        deed.project_id = None  # what is done behind the answer is nobody's deed

    def _write(self, deed: Deed, status: int) -> None:
        try:
            with self._store.write() as session:
                time = now(session)
                if status == FORBIDDEN and audit.was_refused_since(session, deed, status, time - REMEMBERED):
                    log.info(
                        "audit_refusal_repeated", action=deed.action, key_id=deed.key_id, object_ids=deed.object_ids
                    )
                else:
                    audit.add(session, deed, _outcome_of(status), status, time)
        except SQLAlchemyError as error:  # the answer is what it is, and most likely says the same
            log.error("audit_not_written", action=deed.action, request_id=deed.request_id, error=repr(error))


def _outcome_of(status: int) -> Outcome:
    if status < FIRST_REFUSAL:
        return "done"
    return "refused" if status < FIRST_FAILURE else "failed"
