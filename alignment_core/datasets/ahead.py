"""Work that is begun before it is asked for: reading and decoding go on while the encoder is busy, and the next batch is made while a step runs.

Order, content and errors are those of doing one thing after another. What was begun before an error comes first, then the
error is raised; so a broken row is named when its turn has come, and what stands before it is done and kept.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, the next of which a thread makes while this one is used. Nothing of `items` runs in two threads at once.

    The thread ends with the iterator, however that ends.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # pyright: ignore[reportReturnType]  (it is not the end)


def begun_ahead(items: Iterator[T], num: int) -> Iterator[T]:
    """The items, each once the `num` after it have been made: for items whose making begins something."""
    waiting: deque[T] = deque()
    while True:
        try:
            waiting.append(next(items))
        except StopIteration:
            yield from waiting
            return
        except Exception:
            yield from waiting
            raise
        if len(waiting) > num:
            yield waiting.popleft()
