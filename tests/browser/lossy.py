"""A connection that breaks after the server has done what it was asked, and before it can say so: a proxy that loses answers."""

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, as a broken line looks to a browser
OF_ONE_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass
class LossyConnection:
    """Loses answers: for a pattern of `METHOD /path` as many as `lose` says, and `lost` tells which.

    One is not enough where the page shall notice: a browser sends again by itself what a connection that it had used before lost.
    """

    address: str
    lose: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def is_lost(self, request: str) -> bool:
        pattern = next((one for one, left in self.lose.items() if left and re.fullmatch(one, request)), None)
        if pattern is None:
            return False
        self.lose[pattern] -= 1
        self.lost.append(pattern)
        return True


@contextmanager
def lossy_connection(to: str) -> Iterator[LossyConnection]:
    server_name = urlsplit(to).netloc

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream = http.client.HTTPConnection(server_name, timeout=60)
            upstream.request(self.command, self.path, body or None, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if found.is_lost(f"{self.command} {urlsplit(self.path).path}"):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.close_connection = True
                self.connection.close()
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in OF_ONE_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = hand_on  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            return

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ValueError):  # the browser left, or the connection was broken here
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    found = LossyConnection(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
