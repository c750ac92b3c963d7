"""The heartbeat keeps the lease, hears requests, and gives up a lease that it cannot renew."""

import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from service.store.clock import host_seconds
from worker.heartbeat import Heartbeat, Signal


def heartbeat(
    renew: Callable[[], Signal], poll: Callable[[], Signal], shutting_down: threading.Event | None = None
) -> Heartbeat:
    return Heartbeat(
        renew,
        poll,
        lease_seconds=0.5,
        heartbeat_seconds=0.1,
        poll_seconds=0.03,
        shutting_down=shutting_down or threading.Event(),
    )


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_it_renews_again_and_again_and_polls_in_between() -> None:
    renewed, polled = [], []

    def renew() -> Signal:
        renewed.append(time.monotonic())
        return "go_on"

    def poll() -> Signal:
        polled.append(time.monotonic())
        return "go_on"

    with heartbeat(renew, poll) as beating:
        wait_until(lambda: len(renewed) >= 3 and len(polled) >= 3)
        assert beating.signal == "go_on"
    num_renewals = len(renewed)
    time.sleep(0.25)
    assert len(renewed) == num_renewals, "it stops with its block"


def test_a_request_is_told_once_and_a_stronger_one_after_it() -> None:
    heard: list[Signal] = []
    asked: list[Signal] = ["pause"]
    with heartbeat(lambda: asked[-1], lambda: asked[-1]) as beating:
        wait_until(lambda: beating.signal == "pause")
        beating.listen(heard.append)
        asked.append("cancel")
        wait_until(lambda: len(heard) == 2)
        asked.append("go_on")
        time.sleep(0.15)
    assert heard == ["pause", "cancel"]


def test_a_lease_that_cannot_be_renewed_is_lost_when_it_has_ended() -> None:
    def fail() -> Signal:
        raise OperationalError("UPDATE", {}, OSError("the database is away"))

    started = time.monotonic()
    with heartbeat(fail, fail) as beating:
        wait_until(lambda: beating.signal == "lost")
    assert time.monotonic() - started >= 0.5


def test_a_shutdown_of_the_worker_is_a_request_too() -> None:
    shutting_down = threading.Event()
    with heartbeat(lambda: "go_on", lambda: "go_on", shutting_down) as beating:
        shutting_down.set()
        wait_until(lambda: beating.signal == "shutdown")


def test_a_renewal_says_until_when_counted_from_before_it_was_asked() -> None:
    asked: list[float] = []
    told: list[float] = []

    def renew() -> Signal:
        asked.append(host_seconds())
        time.sleep(0.05)
        return "go_on"

    with heartbeat(renew, lambda: "go_on") as beating:
        beating.listen(lambda _: None, told.append)
        wait_until(lambda: len(told) >= 3)
    assert all(until <= at + 0.5 for until, at in zip(told[1:], asked, strict=False))
    assert told == sorted(told)


def test_a_lost_lease_is_no_renewal() -> None:
    told: list[float] = []
    with heartbeat(lambda: "lost", lambda: "go_on") as beating:
        beating.listen(lambda _: None, told.append)
        wait_until(lambda: beating.signal == "lost")
    assert len(told) == 1
