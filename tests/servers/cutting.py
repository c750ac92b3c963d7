"""A connection that is cut in the middle of what is sent: a proxy of bytes that knows nothing of HTTP."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, as a broken line looks to a client
CHUNK_BYTES = 65_536


@dataclass
class CutConnection:
    """A connection that has carried more than `cuts[0]` bytes to the server is cut, which takes the number from the list."""

    address: str
    cuts: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_cut_after(self, carried: int) -> bool:
        with self.lock:
            if self.cuts and carried > self.cuts[0]:
                self.cuts.pop(0)
                return True
            return False


@contextmanager
def cut_connection(to: str) -> Iterator[CutConnection]:
    """A proxy before the server at `to`."""
    place = urlsplit(to)
    listener = socket.create_server(("127.0.0.1", 0))
    found = CutConnection(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed in the end
                return
            server = socket.create_connection((place.hostname or "", place.port or 80))
            threading.Thread(target=_join, args=(client, server, found), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield found
    finally:
        listener.close()


def _join(client: socket.socket, server: socket.socket, found: CutConnection) -> None:
    """Carry what both say until one has no more to say, or the connection is cut."""
    back = threading.Thread(target=_carry, args=(server, client), daemon=True)
    back.start()
    with client, server:
        if _carry(client, server, found.is_cut_after):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return
        back.join()


def _carry(source: socket.socket, target: socket.socket, is_cut_after: Callable[[int], bool] | None = None) -> bool:
    """Whether it was cut."""
    carried = 0
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            carried += len(chunk)
            target.sendall(chunk)
            if is_cut_after is not None and is_cut_after(carried):
                return True
        target.shutdown(socket.SHUT_WR)
    return False
