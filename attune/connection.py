"""One connection pool to one server: requests, pages and streams, with every way to fail as an `AttuneError`."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from attune.errors import AttuneError

NOTHING_MORE = 204  # so the standard lets a server end a stream for good
STREAM_TIMEOUT_SECONDS = 60.0  # the server's heartbeat comes every 15


def segment(identifier: str) -> str:
    """An id as one part of a path, so that `../x` asks for a thing of that name and for nothing else."""
    return quote(identifier, safe="")


def checked_url(address: str) -> str:
    """The address of a server without a slash at its end; `ValueError` for one that is none."""
    if "://" not in address:
        raise ValueError(f"the server's address {address!r} lacks its scheme; write http://{address}")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ValueError(f"the server's address {address!r} is none: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the server's address {address!r} is none; expected one such as http://127.0.0.1:8000")
    return address.rstrip("/")


class Connection:
    """What a client speaks through. `http` is the pool itself, for downloads."""

    def __init__(
        self, base_url: str, api_key: str | None, timeout_seconds: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.base_url = base_url
        self.http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_seconds),
            follow_redirects=True,
            transport=transport,
        )

    def close(self) -> None:
        self.http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        json: Any = None,
        data: Any = None,
        files: Any = None,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> Any:
        """The answer's JSON."""
        response = self._answer(
            lambda: self.http.request(
                method,
                path,
                params=params,
                json=json,
                data=data,
                files=files,
                headers=headers,
                timeout=timeout or httpx.USE_CLIENT_DEFAULT,
            )
        )
        try:
            return response.json()
        except ValueError as error:
            raise AttuneError.not_attune(self.base_url) from error

    def poll(self, path: str, wait_seconds: float) -> Any:
        """The JSON of a thing that the server may wait with for so long, until it has ended."""
        timeout = httpx.Timeout(30.0, read=30.0 + wait_seconds)
        return self.request("GET", path, params={"wait": wait_seconds}, timeout=timeout)

    def send(
        self, method: str, path: str, *, content: Iterator[bytes], headers: dict[str, str], timeout: httpx.Timeout
    ) -> httpx.Headers:
        """Send bytes as they come; the headers of the answer."""
        request = {"content": content, "headers": headers, "timeout": timeout}
        return self._answer(lambda: self.http.request(method, path, **request)).headers

    def request_bytes(self, path: str) -> bytes:
        """The answer's body as it is."""
        return self._answer(lambda: self.http.get(path)).content

    def _answer(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            response = send()
        except httpx.RequestError as error:
            raise AttuneError.unreachable(self.base_url, error) from error
        if not response.is_success:
            raise AttuneError.of_response(response)
        return response

    def pages(self, path: str, filters: list[tuple[str, str]], after: str | None = None) -> Iterator[dict[str, Any]]:
        """The entries of a list, from its beginning or behind the one of the id `after`, page by page as they are needed."""
        while True:
            place = [] if after is None else [("after", after)]
            page = self.request("GET", path, params=httpx.QueryParams([*filters, *place, ("limit", "100")]))
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["last_id"]

    def stream(self, path: str, after: str | None) -> Iterator[ServerSentEvent]:
        """Server-sent events after the id `after`, until the connection ends; raises httpx's `TransportError` too."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        timeout = httpx.Timeout(30.0, read=STREAM_TIMEOUT_SECONDS)
        with self.http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise AttuneError.of_response(response)
            if response.status_code == NOTHING_MORE:
                yield ServerSentEvent(event="done")
                return
            try:
                # httpx's own lines also end at U+2028, U+2029 and U+0085, which prompts may contain
                # the standard drops a message without data; httpx-sse hands heartbeats out as such once an id was seen
                yield from (message for message in EventSource(response).iter_sse() if message.data)
            except SSEError as error:
                raise AttuneError.not_attune(self.base_url) from error

    def answers(self, path: str) -> bool:
        """Whether a GET of the path succeeds."""
        try:
            return self.http.get(path).is_success
        except httpx.TransportError:
            return False


class Connected(Protocol):
    """A client, as far as an operation needs one."""

    @property
    def connection(self) -> Connection: ...
