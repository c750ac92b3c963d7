"""An upload in pieces, as a client sends it."""

import socket
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from httpx2 import Response

from service.store.models import Upload
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.api.world import Api

LONG = b"PAR1" + b"".join(number.to_bytes(4, "big") for number in range(700_000)) + b"PAR1"  # not the same anywhere
BYTES = "application/offset+octet-stream"


def announce(api: Api, size_bytes: int, purpose: str = "dataset", **said: Any) -> str:
    """Id of an upload of so many bytes."""
    said = {"filename": "pairs.parquet", **said}
    answer = api.client.post("/v1/uploads", json={"purpose": purpose, "size_bytes": size_bytes, **said})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/uploads/{answer.json()['id']}"
    return answer.json()["id"]


def send(api: Api, upload_id: str, offset: int, content: bytes) -> Response:
    headers = {"Upload-Offset": str(offset), "Content-Type": BYTES}
    return api.client.patch(f"/v1/uploads/{upload_id}", content=content, headers=headers)


def send_all(api: Api, upload_id: str, content: bytes, piece: int = 999_983) -> None:
    for start in range(0, len(content), piece):
        answer = send(api, upload_id, start, content[start : start + piece])
        assert answer.status_code == 204, answer.text
        assert int(answer.headers["upload-offset"]) == min(start + piece, len(content))


def finish(api: Api, upload_id: str) -> Response:
    return api.client.post(f"/v1/uploads/{upload_id}/finish")


def offset_of(api: Api, upload_id: str) -> int:
    return int(api.client.head(f"/v1/uploads/{upload_id}").headers["upload-offset"])


def content_of(api: Api, dataset_id: str, suffix: str = ".parquet") -> bytes:
    return b"".join(api.parts.objects.open_range(f"projects/{PROJECT}/datasets/{dataset_id}/data{suffix}"))


def pieces_left(api: Api) -> list[str]:
    return [info.key for info in api.parts.objects.list(f"projects/{PROJECT}/uploads/")]


def bytes_used(api: Api) -> float:
    return next(one["used"] for one in api.client.get("/v1/quotas").json()["data"] if one["id"] == "bytes")


def make_old(api: Api, upload_id: str, **values: Any) -> None:
    with api.parts.store.write() as session:
        session.execute(sa.update(Upload).where(Upload.id == upload_id).values(**values))


def break_off(address: str, upload_id: str, offset: int, content: bytes, announced: int) -> None:
    """Say that so much comes, send less, and hang up."""
    parts = urlsplit(address)
    head = (
        f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: {BYTES}\r\nContent-Length: {announced}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head.encode() + content)
