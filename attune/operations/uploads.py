"""Files on their way to the server."""

from collections.abc import Iterator

from attune.connection import Connected, segment
from attune.resources.data import Upload


def unfinished_uploads(client: Connected) -> Iterator[Upload]:
    """Files on their way, newest first: of calls that are at work, or that ended before all was sent."""
    return (Upload.model_validate(entry) for entry in client.connection.pages("/v1/uploads", []))


def get_upload(client: Connected, upload_id: str) -> Upload:
    """A file on its way, and how much of it has arrived."""
    return Upload.model_validate(client.connection.request("GET", f"/v1/uploads/{segment(upload_id)}"))


def delete_upload(client: Connected, upload_id: str) -> None:
    """Remove what has arrived of a file; otherwise it goes by itself, a day after the last of it came."""
    client.connection.request("DELETE", f"/v1/uploads/{segment(upload_id)}")
