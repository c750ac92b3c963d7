"""Webhooks: who is told, what waits to be sent, and senders, of which any may learn at any time how its request ended, the lost ones too."""

import base64
from datetime import timedelta
from typing import Literal

from standardwebhooks import Webhook as Receiver

from benchmarks.simulation import rows, told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.rows import Rows
from benchmarks.simulation.world import LEASE_SECONDS, World, judge, pick
from service.store import deliveries, webhooks
from service.store.deliveries import Answer
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.webhooks import DeliveryClaim
from service.store.webhook_events import PING
from service.store.webhook_secrets import PREFIX
from worker.webhooks import signed_headers

MOST = 3
SECRET = PREFIX + base64.b64encode(b"a secret of thirty-two characters").decode()
WANTED = (  # but `sweep.ended`, whose transaction is that of a trial or of whoever feeds it, and what guards say
    *(f"job.{state}" for state in ("succeeded", "failed", "cancelled")),
    *(f"evaluation.{state}" for state in ("succeeded", "failed", "cancelled", "verified")),
    *("dataset.ready", "dataset.failed", "champion.changed", "alias.changed", "webhook.disabled"),
)
GIVEN_UP_AFTER = 8  # tries, over a day
FAILS_BEFORE_DISABLED, DISABLED_AFTER = 10, timedelta(days=5)
KEPT_DAYS = 30.0

How = Literal["good", "bad", "gone"]
ANSWERS = {"good": Answer(200, 5), "bad": Answer(500, 5), "gone": Answer(410, 5)}
Change = Literal["on", "off", "delete", "ping"]


# --- owners --------------------------------------------------------------------------------------------------------


def add(world: World, death: Death | None) -> None:
    sealer, url = world.settings.webhooks_sealer, f"https://{world.told.num_urls}.example"
    assert sealer is not None
    call = lambda: webhooks.create(  # noqa: E731
        world.store,
        project_id=PROJECT,
        url=url,
        sealed_secret=sealer.seal(SECRET),
        most=MOST,
        event_types=WANTED,
    )
    outcome = world.ask("createWebhook", call, death)
    if judge(outcome, allowed=len(world.told.webhooks) < MOST):
        (made,) = {row.id for row in rows.read(world.store)["webhooks"]} - set(world.told.webhooks)
        world.told.webhooks[made] = told.Webhook(made, url)
        world.told.num_urls += 1


def change(world: World, index: int, what: Change, death: Death | None) -> None:
    hook = pick(world.told.webhooks.values(), index)
    match what:
        case "delete":
            outcome = world.ask("deleteWebhook", lambda: webhooks.delete(world.store, PROJECT, hook.id), death)
            if judge(outcome, allowed=True):
                world.told.drop_webhook(hook.id)
        case "ping":
            if judge(
                world.ask("testWebhook", lambda: deliveries.ping(world.store, PROJECT, hook.id), death), allowed=True
            ):
                world.told.announced[hook.id, PING, hook.id] += 1
        case "on" | "off":
            _switch(world, hook, enabled=what == "on")


def _switch(world: World, hook: told.Webhook, *, enabled: bool) -> None:
    call = lambda: webhooks.change(  # noqa: E731
        world.store, PROJECT, hook.id, url=hook.url, event_types=WANTED, description=None, enabled=enabled
    )
    if judge(world.ask("changeWebhook", call), allowed=True):
        if enabled and not hook.enabled:
            hook.num_failures, hook.failing_since = 0, None
        hook.enabled = enabled


def redeliver(world: World, index: int, death: Death | None) -> None:
    """Under the id that it had."""
    one = pick(world.told.deliveries.values(), index)
    call = lambda: deliveries.redeliver(world.store, PROJECT, one.webhook_id, one.id)  # noqa: E731
    allowed = world.told.webhooks[one.webhook_id].enabled or one.type == PING
    if judge(world.ask("redeliver", call, death), allowed=allowed):
        one.state, one.num_failures = "pending", 0


# --- senders -------------------------------------------------------------------------------------------------------


def send(world: World, death: Death | None) -> None:
    """Claim what is due, of an address that is not busy, and ask that address. A delivery has one sender at a time."""
    found = rows.read(world.store)
    adopt(world, found)
    certain, possible = _due(world, found, 0.0), _due(world, found, 1.0)
    time = world.clock.time
    outcome = world.act(lambda: deliveries.claim(world.store, LEASE_SECONDS), death)
    changed = [
        row for row in rows.read(world.store)["deliveries"] if row.attempt != world.told.deliveries[row.id].attempt
    ]
    assert changed or outcome.died or not certain, f"{sorted(certain)} are due, and no sender gets them"
    assert len(changed) <= 1, "a sender got more than it can send"
    for row in changed:
        assert row.id in possible, "it was being sent, or is not due"
        one = world.told.deliveries[row.id]
        one.attempt, one.lease_ends_at = one.attempt + 1, time + timedelta(seconds=LEASE_SECONDS)
    claimed: DeliveryClaim | None = outcome.value
    if claimed is not None:
        _receive(world, claimed)
        world.senders.append(claimed)


def _due(world: World, found: Rows, seconds: float) -> set[str]:
    """Ids of all that may be claimed in so many seconds."""
    time, due = world.clock.time + timedelta(seconds=seconds), set[str]()
    leased = [one for one in world.told.deliveries.values() if one.is_leased(time)]
    for row in found["deliveries"]:
        one = world.told.deliveries[row.id]
        is_busy = sum(other.webhook_id == one.webhook_id for other in leased) >= deliveries.AT_ONCE
        is_sent = one.state == "pending" and (world.told.webhooks[one.webhook_id].enabled or one.type == PING)
        is_due = row.due_at is not None and row.due_at <= time
        if is_sent and is_due and not is_busy and not one.is_leased(time):
            due.add(row.id)
    return due


def _receive(world: World, claimed: DeliveryClaim) -> None:
    """What a receiver sees: an address that is there and on, a signature of its secret, and for what happened once one id."""
    sealer, one = world.settings.webhooks_sealer, world.told.deliveries[claimed.id]
    assert sealer is not None
    headers = signed_headers([sealer.open(secret) for secret in claimed.secrets], claimed.id, claimed.body)
    Receiver(SECRET).verify(claimed.body, headers)
    hook = next((hook for hook in world.told.webhooks.values() if hook.url == claimed.url), None)
    assert hook is not None, f"{claimed.url} was deleted"
    assert hook.enabled or one.type == PING, f"{claimed.url} is off"
    known = world.told.received.setdefault((claimed.url, claimed.body), headers["webhook-id"])
    assert known == headers["webhook-id"] == claimed.id, "what happened once came under two ids"


def answer(world: World, index: int, how: How, death: Death | None) -> None:
    """How a request ended, noted by its sender: once, and only while no later one has the delivery."""
    claimed = pick(world.senders, index)
    one = world.told.deliveries.get(claimed.id)
    is_its = one is not None and one.attempt == claimed.attempt and one.state == "pending"
    time = world.clock.time
    call = lambda: deliveries.record(world.store, claimed, ANSWERS[how], DISABLED_AFTER)  # noqa: E731
    outcome = world.act(call, death)
    assert outcome.died or (outcome.value is not None) == is_its, "recorded by another than who has it"
    if not outcome.happened or one is None or not is_its:
        return
    world.senders.remove(claimed)
    one.lease_ends_at, hook = None, world.told.webhooks[one.webhook_id]
    if how == "good":
        one.state, hook.num_failures, hook.failing_since = "delivered", 0, None
        return
    one.num_failures += 1
    is_over = how == "gone" or one.num_failures >= GIVEN_UP_AFTER or one.type == PING
    one.state = "failed" if is_over else "pending"
    if one.type == PING:  # somebody tries something
        return
    hook.num_failures, hook.failing_since = hook.num_failures + 1, hook.failing_since or time
    is_failing = time - hook.failing_since >= DISABLED_AFTER and hook.num_failures >= FAILS_BEFORE_DISABLED
    if hook.enabled and (how == "gone" or is_failing):
        hook.enabled = False
        world.told.announce("webhook.disabled", hook.id)


# --- the house -----------------------------------------------------------------------------------------------------


def forget_old(world: World, death: Death | None) -> None:
    """The log is kept for so long, whatever is in it."""
    found, time = rows.read(world.store), world.clock.time
    adopt(world, found)
    outcome = world.act(lambda: deliveries.forget_old(world.store, KEPT_DAYS), death)
    left = {row.id for row in rows.read(world.store)["deliveries"]}
    for row in found["deliveries"]:
        is_old = world.clock.time - row.created_at > timedelta(days=KEPT_DAYS)
        if row.id not in left:
            assert outcome.happened
            assert is_old, "it was young"
            one = world.told.deliveries.pop(row.id)
            world.told.announced[one.webhook_id, one.type, one.subject] -= 1
        else:
            assert not outcome.happened or time - row.created_at <= timedelta(days=KEPT_DAYS), "it was old"


def adopt(world: World, found: Rows) -> None:
    """Rows of what was announced. Their ids are the store's to choose; how many there must be of each, the record says."""
    for row in found["deliveries"]:
        if row.id not in world.told.deliveries:
            made = told.Delivery(row.id, row.webhook_id, row.type, rows.subject_of(row.body))
            world.told.deliveries[row.id] = made
