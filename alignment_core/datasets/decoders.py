"""Who decodes the images of a data set before they are encoded: threads of this process, or processes where there are many images.

Order and pixels are the same. Threads share one address space, and the memory that each image takes anew in it holds them up; a process
takes half a second to start.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch

from alignment_core.datasets.decoder_process import ASKED, DECODED
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.transforms import Frame, Pixels, frame, scaled, transform
from alignment_core.errors import AlignmentError, DataError
from alignment_core.ranks import Ranks

Decoded = tuple[Pixels, Frame]
Decode = Callable[[bytes, int], Future[Decoded]]
"""Begin with the bytes of an image, for a resolution; the future raises `DataError` for one that cannot be decoded."""

LEAST_THREADS, MOST = 4, 16
LEAST_IMAGES = 1000  # for which processes are started
END_SECONDS = 5.0
COMMAND = ("-P", "-m", "alignment_core.datasets.decoder_process")
ROOT = Path(__file__).parents[2]  # what has `alignment_core`


def num_processes(num_images: int, cores: int, ranks: int = 1) -> int:
    """How many processes decode so many images beside each of a run's own; 0 leaves it to threads."""
    own = min(MOST, cores // ranks)
    return own if own > 1 and num_images >= LEAST_IMAGES else 0


def num_threads(cores: int) -> int:
    """As many as there are cores for: Pillow decodes and scales without the interpreter's lock."""
    return min(MOST, max(LEAST_THREADS, cores))


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def decoding(num_images: int, ranks: Ranks) -> Iterator[Decode]:
    """What decodes; it ends with the context, and what has not begun by then never does."""
    processes = num_processes(num_images, cores(), ranks.count)
    with in_processes(processes) if processes else in_threads(num_threads(cores())) as decode:
        yield decode


@contextmanager
def in_threads(num: int) -> Iterator[Decode]:
    threads = ThreadPoolExecutor(num, thread_name_prefix="decoding")
    try:
        yield lambda data, resolution: threads.submit(_decoded_here, data, resolution)
    finally:
        threads.shutdown(cancel_futures=True)


@contextmanager
def in_processes(num: int) -> Iterator[Decode]:
    """A thread asks each process, which starts with the first image that it is given."""
    mine, started = threading.local(), list[_Process]()

    def decoded(data: bytes, resolution: int) -> Decoded:
        if not hasattr(mine, "process"):
            mine.process = _Process()
            started.append(mine.process)
        return mine.process.decoded(data, resolution)

    threads = ThreadPoolExecutor(num, thread_name_prefix="decoding")
    try:
        yield lambda data, resolution: threads.submit(decoded, data, resolution)
    finally:
        threads.shutdown(cancel_futures=True)
        for process in started:
            process.end()


def _decoded_here(data: bytes, resolution: int) -> Decoded:
    image = decode_image(data)
    return transform(image, resolution), frame(image, resolution)


class _Process:
    """One process, asked by one thread."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def decoded(self, data: bytes, resolution: int) -> Decoded:
        try:
            self._requests.write(ASKED.pack(resolution, len(data)) + data)
            self._requests.flush()
            is_decoded, *numbers = DECODED.unpack(_whole(self._answers, DECODED.size))
            if not is_decoded:
                code, message = (_whole(self._answers, size).decode() for size in numbers[:2])
                raise DataError(code, message)
            pixels = np.frombuffer(bytearray(_whole(self._answers, 3 * resolution**2)), dtype=np.uint8)
        except (OSError, EOFError) as error:
            raise self._lost() from error
        return scaled(pixels.reshape(resolution, resolution, 3)), torch.tensor(numbers, dtype=torch.float32)

    def end(self) -> None:
        """Wait for it, so that nothing of it is left."""
        for pipe in (self._requests, self._answers):
            try:
                pipe.close()
            except OSError:  # it is gone already
                continue
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _lost(self) -> AlignmentError:
        self._process.kill()
        code = self._process.wait()
        return AlignmentError(
            "decoder_lost",
            f"the process that decoded it ended with {code}, most likely for lack of memory",
            category="system",
            retryable=True,
        )


def _whole(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the process has ended")
    return data
