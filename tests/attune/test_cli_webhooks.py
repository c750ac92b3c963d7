"""Webhooks on the command line and by the client, against a real API."""

import subprocess
from collections.abc import Callable
from datetime import timedelta

from attune.client import Client
from service.store import deliveries
from service.store.deliveries import Answer
from tests.attune.test_cli_jobs import api, attune, url  # noqa: F401  fixtures
from tests.service.api.world import Api

Attune = Callable[..., subprocess.CompletedProcess[str]]
URL = "https://hooks.example.org/attune"


def test_a_webhook_is_made_changed_and_deleted(attune: Attune) -> None:  # noqa: F811
    made = attune("webhooks", "create", URL, "--event", "job.failed")
    assert made.stdout.startswith("whsec_")
    webhook_id, _, said = made.stderr.partition(":")
    assert "only time" in said
    assert webhook_id in attune("webhooks", "list").stdout
    assert attune("webhooks", "change", webhook_id, "--disable").stdout.strip() == "off"
    assert '"job.failed"' in attune("webhooks", "show", webhook_id).stdout  # what was not named stays
    assert attune("webhooks", "rotate", webhook_id, "--grace-hours", "1").stdout.startswith("whsec_")
    assert attune("webhooks", "delete", webhook_id).stdout.strip() == "deleted"


def test_the_client_has_the_log_of_what_was_sent(api: Api, url: str) -> None:  # noqa: F811
    with Client(url) as client:
        made = client.webhooks.create(URL)
        sent = client.webhooks.test(made.id)
        claim = deliveries.claim(api.parts.store, 60)
        assert claim is not None
        deliveries.record(api.parts.store, claim, Answer(500, 7, answer="sorry"), timedelta(days=5))
        tried = client.webhooks.wait(made.id, sent.id)
        assert (tried.state, tried.tries[0].answer) == ("failed", "sorry")
        assert client.webhooks.redeliver(made.id, sent.id).state == "pending"
        assert [one.id for one in client.webhooks.deliveries(made.id, state="pending")] == [sent.id]
        assert client.webhooks.change(made.id, url=URL, enabled=False).disabled_because == "asked"
        client.webhooks.delete(made.id)
        assert list(client.webhooks.list()) == []
