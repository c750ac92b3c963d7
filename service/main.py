"""The service: `uvicorn --factory service.main:app` serves it on the settings of the environment."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware

from service import errors, web
from service.api import (
    actions,
    aliases,
    api_keys,
    audit,
    candidates,
    catalog,
    checkpoints,
    datasets,
    deletion,
    evaluation_results,
    evaluations,
    events,
    exports,
    finished_uploads,
    forks,
    health,
    jobs,
    labelings,
    links,
    pages,
    pairs,
    playground,
    prompt_sets,
    pushes,
    quotas,
    results,
    resumable_uploads,
    retention,
    sessions,
    sweeps,
    usage,
    webhooks,
    weights,
)
from service.api.audit_trail import AuditTrail
from service.api.browsers import HostCheck
from service.api.browsing import Browsed
from service.api.context import Parts
from service.api.feeds import Feeds
from service.api.lookout import Lookout
from service.api.middleware import BodyLimit, RequestContext
from service.api.openapi import DESCRIPTION, SUMMARY, TAGS, TITLE, openapi_of
from service.api.routers import take_routes
from service.api.telemetry import Telemetry
from service.api.uploads import UPLOAD_PREFIX, uploads_folder
from service.logs import configure_logging
from service.queue import Bell, Line
from service.settings import Settings
from service.sign_ins import SignIns
from service.store import waiting
from service.store.catalog import Catalog
from service.store.counted import CountedObjects
from service.store.counts import deliveries_by_state, jobs_by_state, waiting_by_class
from service.store.database import Store, open_store
from service.store.migrations import migrate
from service.store.objects import open_objects, remove_abandoned
from service.store.probe import StoreProbe
from service.store.pulses import dataset_states, export_states, job_pulses, push_states

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from service.tracing import Tracing

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        *("Authorization", "Idempotency-Key", "If-None-Match", "If-Range", "Last-Event-ID", "X-Request-ID"),
        *("Tus-Resumable", "Upload-Offset"),
    ],
    "expose_headers": [
        *("Location", "Link", "ETag", "Accept-Ranges", "Content-Range", "Content-Disposition"),
        *("Idempotency-Replayed", "Retry-After", "X-Request-ID", "RateLimit", "RateLimit-Policy"),
        *("Tus-Resumable", "Upload-Expires", "Upload-Length", "Upload-Offset"),
    ],
}
# FastAPI's own spans and logs have queries, refused input and the messages of exceptions; ours are in api/request_traces.py
FASTAPI_SENDS: "TelemetryConfig" = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
# In the order of the document
WITH_ROUTES = (
    jobs,
    sweeps,
    actions,
    forks,
    evaluations,
    evaluation_results,
    candidates,
    playground,
    labelings,
    events,
    results,
    checkpoints,
    exports,
    pushes,
    datasets,
    pairs,
    prompt_sets,
    weights,
    resumable_uploads,
    finished_uploads,
    deletion,
    aliases,
    api_keys,
    sessions,
    links,
    audit,
    quotas,
    usage,
    retention,
    webhooks,
    catalog,
    health,
    pages,
)
MAX_JSON_BYTES = 8 * 2**20  # a hundred thousand prompts of eighty characters fit


def app() -> FastAPI:
    """The app on the settings of the environment, for uvicorn's `--factory`; a mistake in them is one line, no traceback."""
    try:
        return create_app(Settings())
    except ValueError as error:
        raise SystemExit(f"Attune cannot start: {error}") from error


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app on these settings, or on the environment's. The database is migrated when the app starts to serve."""
    settings = settings or Settings()
    configure_logging()
    parts = build_parts(settings)
    app = FastAPI(
        title=TITLE,
        summary=SUMMARY,
        description=DESCRIPTION,
        version=version("attune"),
        openapi_tags=TAGS,
        telemetry=FASTAPI_SENDS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        redirect_slashes=False,
        docs_url=None,  # service.api.pages: without a content delivery network
        redoc_url=None,
    )
    app.state.parts, app.state.tracing = parts, None
    errors.install(app)
    take_routes(app, [module.router for module in WITH_ROUTES])
    web.install(app)
    _add_middleware(app, parts)
    app.openapi = lambda: openapi_of(app, settings)
    return app


def _add_middleware(app: FastAPI, parts: Parts) -> None:
    """Each is around those added before it."""
    settings = parts.settings
    app.add_middleware(AuditTrail, store=parts.store)
    app.add_middleware(
        BodyLimit,
        max_json_bytes=MAX_JSON_BYTES,
        max_upload_bytes=settings.max_upload_bytes,
        upload_paths=(datasets.UPLOAD_PATH, prompt_sets.UPLOAD_PATH, weights.UPLOAD_PATH),
        pieces_below=f"{resumable_uploads.UPLOADS_PATH}/",
    )
    if not settings.api_keys_required:
        app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(RequestContext, telemetry=parts.telemetry)  # around everything that answers
    if settings.traces:
        app.state.tracing = _trace(app)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)


def build_parts(settings: Settings) -> Parts:
    """Everything the endpoints speak to. Nothing is connected to yet."""
    store = open_store(settings.resolved_database_url, settings.classes, settings.limits)
    telemetry = Telemetry(
        partial(jobs_by_state, store), partial(waiting_by_class, store), partial(deliveries_by_state, store)
    )
    objects = CountedObjects(open_objects(settings), telemetry.count_object_error)
    return Parts(
        settings=settings,
        store=store,
        objects=objects,
        objects_probe=StoreProbe(objects),
        browsed=Browsed(objects),
        catalog=Catalog.load(settings.catalog_path),
        bell=Bell(
            settings.resolved_broker_url,
            num_jobs=partial(waiting.num_jobs, store),
            num_datasets=partial(waiting.num_beside_jobs, store),
            line_of_job=partial(_line_of_job, store),
        ),
        telemetry=telemetry,
        jobs_lookout=Lookout(partial(job_pulses, store)),
        datasets_lookout=Lookout(partial(dataset_states, store)),
        exports_lookout=Lookout(partial(export_states, store)),
        pushes_lookout=Lookout(partial(push_states, store)),
        feeds=Feeds(partial(events.read_chunk, store)),
        sign_ins=SignIns(settings.sign_ins_per_minute),
    )


def _line_of_job(store: Store, job_id: str) -> Line | None:
    found = waiting.class_of_job(store, job_id)
    return None if found is None else (found.queue, partial(waiting.num_jobs, store, classes=[found]))


def _trace(app: FastAPI) -> "Tracing":
    """Switch traces on; OpenTelemetry is imported here alone."""
    from service.api.request_traces import RequestTraces
    from service.tracing import Tracing

    tracing = Tracing("attune-api", f"{socket.gethostname()}:{os.getpid()}")
    app.add_middleware(RequestTraces, tracing=tracing)
    return tracing


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    await run_in_threadpool(migrate, parts.settings.resolved_database_url)
    uploads = uploads_folder(parts.settings)
    remove_abandoned(uploads, f"{UPLOAD_PREFIX}*", parts.settings.upload_timeout_seconds)
    parts.bell.start()
    try:
        yield
    finally:
        await run_in_threadpool(parts.bell.close)
        parts.store.close()
        if app.state.tracing is not None:
            await run_in_threadpool(app.state.tracing.close)
