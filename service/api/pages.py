"""The reference for people at `/docs`, with everything it loads served from here: it works without the internet."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

from service.errors import not_found

router = APIRouter(include_in_schema=False)

ASSETS = Path(str(files("fastapi_offline"))) / "static"  # the package is Swagger UI, as files
SCRIPT, STYLE, ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"
MEDIA_TYPES = {SCRIPT: "text/javascript", STYLE: "text/css", ICON: "image/png"}
BROWSER = ["GET", "HEAD"]


@router.api_route("/docs", methods=BROWSER)
def show_reference(request: Request) -> Response:
    """Swagger UI on the OpenAPI document."""
    root = _root(request)
    return get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=f"{request.app.title}: reference",
        swagger_js_url=f"{root}/docs/{SCRIPT}",
        swagger_css_url=f"{root}/docs/{STYLE}",
        swagger_favicon_url=f"{root}/docs/{ICON}",
        swagger_ui_parameters={"validatorUrl": None},  # else it asks a server of its makers
    )


@router.api_route("/docs/{name}", methods=BROWSER)
def send_asset(name: str) -> Response:
    """One of the three files that the reference loads."""
    if name not in MEDIA_TYPES:
        raise not_found("file", name)
    return FileResponse(ASSETS / name, media_type=MEDIA_TYPES[name], headers={"Cache-Control": "public, max-age=86400"})


def _root(request: Request) -> str:
    """What a proxy puts before every path."""
    return request.scope.get("root_path", "").rstrip("/")
