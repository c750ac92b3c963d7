"""A TCP relay in front of a real server: what a network does to connections, done on purpose."""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from typing import Literal

Mode = Literal["pass", "down", "stall", "slow", "errors", "truncate"]
"""`down` refuses and cuts, `stall` holds every byte back, `slow` lets few through, `errors` answers HTTP 500, `truncate` cuts what is sent short."""

CHUNK_BYTES = 16_384
SLOW_BYTES_PER_SECOND = 100_000
TRUNCATED_BYTES = 8_192  # of what a client sends on a connection: headers and small files come through
LOOK_SECONDS = 0.05
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay:
    """Listens on a port of its own and passes connections on to `upstream`: a TCP address, or the path of a unix socket."""

    def __init__(self, upstream: tuple[str, int] | str) -> None:
        self.upstream = upstream
        self.mode: Mode = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.mode == "down":
            client.close()
            return
        family = socket.AF_UNIX if isinstance(self.upstream, str) else socket.AF_INET
        server = socket.socket(family)
        try:
            server.connect(self.upstream)
        except OSError:
            client.close()
            return
        for source, target, is_upload in ((client, server, True), (server, client, False)):
            threading.Thread(target=self._pump, args=(source, target, is_upload), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_upload: bool) -> None:
        """One direction of a connection, until either end or the mode ends it."""
        sent = 0
        with contextlib.suppress(OSError):  # the other direction may have ended both
            source.settimeout(LOOK_SECONDS)
            while self.mode != "down":
                try:
                    chunk = source.recv(CHUNK_BYTES)
                except TimeoutError:
                    continue
                while self.mode == "stall":
                    time.sleep(LOOK_SECONDS)
                sent += len(chunk)
                if not chunk or self._is_cut(is_upload, sent, source):
                    break
                if self.mode == "slow":
                    time.sleep(len(chunk) / SLOW_BYTES_PER_SECOND)
                target.settimeout(None)
                target.sendall(chunk)
        _end([source, target])

    def _is_cut(self, is_upload: bool, sent: int, client: socket.socket) -> bool:
        if self.mode == "errors" and is_upload:
            client.sendall(ERROR)
            return True
        return self.mode == "down" or (self.mode == "truncate" and is_upload and sent > TRUNCATED_BYTES)


def _end(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
