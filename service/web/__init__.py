"""The web page at `/`: a client of the public API like any other, rendered on the server.

A page asks `/v1/...` of its own app, in the name of whoever reads it (`asking.py`), and shows the answers (`rendering.py`). It has no
other way to the store.
"""

from fastapi import FastAPI

from service.api.routers import take_routes
from service.web import (
    assets,
    compare_page,
    datasets_page,
    delete_page,
    draw_page,
    job_page,
    jobs_page,
    judged_page,
    label_page,
    models_page,
    new_job_page,
    playground_page,
    problems,
    sign_in,
)


def install(app: FastAPI) -> None:
    """Add the pages, after everything of the API."""
    pages = (
        assets,
        sign_in,
        jobs_page,
        compare_page,
        new_job_page,
        datasets_page,
        job_page,
        draw_page,
        label_page,
        judged_page,
        playground_page,
        models_page,
        delete_page,
    )
    take_routes(app, [page.router for page in pages])
    problems.install(app)
