"""Many open streams of a job's events, held by one thread that reads and does no more, so that it takes little from what is measured."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from alignment_core.events import StepCompleted
from service.store import events
from service.store.database import Store
from tests.servers.process import wait_until

SERVED_SECONDS = 120
READ_BYTES = 2**16
STEP = b"event: step_completed"


@contextmanager
def watching(url: str, count: int) -> Iterator[list[int]]:
    """So many streams of a job's events, which all have said a step by then; how many each has said, as they grow."""
    parts = urlsplit(url)
    asked = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    heard, ended = [0] * count, threading.Event()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number in range(count):
            stream = stack.enter_context(socket.create_connection((parts.hostname or "", parts.port or 80), 60))
            stream.sendall(asked.encode())
            selector.register(stream, selectors.EVENT_READ, number)
        reader = threading.Thread(target=_read, args=(selector, heard, ended))
        reader.start()
        try:
            wait_until(lambda: all(heard), f"{count} streams being served", SERVED_SECONDS)
            yield heard
        finally:
            ended.set()
            reader.join()


def _read(selector: selectors.BaseSelector, heard: list[int], ended: threading.Event) -> None:
    while not ended.is_set():
        for key, _ in selector.select(0.1):
            stream, number = key.fileobj, key.data
            assert isinstance(stream, socket.socket)
            if content := stream.recv(READ_BYTES):
                heard[number] += content.count(STEP)
            else:  # the service has hung up
                selector.unregister(stream)
        time.sleep(0.02)  # what has come by then is read at once


@contextmanager
def speaking(store: Store, job_id: str, after_step: int, every_seconds: float) -> Iterator[None]:
    """The job completes a step so often."""
    ended = threading.Event()

    def speak() -> None:
        step = after_step
        while not ended.wait(every_seconds):
            step += 1
            figures = {"loss": 0.5, "margin": 0.1, "implicit_accuracy": 0.6, "grad_norm": 1.0}
            said = StepCompleted(
                step=step, total_steps=10**9, metrics=figures, step_seconds=every_seconds, eta_seconds=1.0
            )
            events.record_events(store, job_id, 1, [said])

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
