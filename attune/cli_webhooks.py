"""Commands for webhooks: who is told of what happens in a project, and what came of telling them."""

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.client import Client
from attune.resources.webhooks import Delivery, NewWebhook, Webhook
from attune.speaking import with_client
from attune.tables import age_of, id_column, listing
from attune.webhooks import DeliveryState

webhooks = typer.Typer(
    no_args_is_help=True, help="Have events posted to an address. Asks for a key with the scope admin."
)
console = Console()
ONCE = "this is the only time that the secret is shown"

Events = Annotated[
    list[str] | None, typer.Option("--event", help="A type of event, such as job.failed; may be given again.")
]
Description = Annotated[str | None, typer.Option(help="What it is for.")]


@webhooks.command("create")
@with_client
def create_webhook(
    client: Client,
    address: Annotated[str, typer.Argument(help="Where events are posted: https://HOST/PATH.")],
    event: Events = None,
    description: Description = None,
) -> None:
    """Have events posted to an https address, all where no --event is given, and print the secret, once."""
    _show_once(client.webhooks.create(address, events=event or None, description=description))


@webhooks.command("list")
@with_client
def list_webhooks(client: Client) -> None:
    """Show the project's webhooks, disabled ones too."""
    table = listing(id_column("whk"), "status", Column("where", overflow="fold"))
    for one in client.webhooks.list():
        table.add_row(one.id, _status(one), one.url)
    console.print(table if table.row_count else "no webhooks")


@webhooks.command("show")
@with_client
def show_webhook(client: Client, webhook_id: str) -> None:
    """Show everything of a webhook but its secret, as JSON."""
    console.print_json(client.webhooks.get(webhook_id).model_dump_json())


@webhooks.command("change")
@with_client
def change_webhook(
    client: Client,
    webhook_id: str,
    address: Annotated[str | None, typer.Option(help="Another one.")] = None,
    event: Events = None,
    all_events: Annotated[bool, typer.Option(help="All types of events, in place of those it has.")] = False,
    description: Description = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether anything is sent.")] = None,
) -> None:
    """Change what is given of a webhook, and leave the rest. A webhook that the service gave up on is enabled so."""
    found = client.webhooks.get(webhook_id)
    changed = client.webhooks.change(
        webhook_id,
        url=address or found.url,
        events=None if all_events else event or found.events,
        description=description or found.description,
        enabled=found.enabled if enable is None else enable,
    )
    console.print(_status(changed))


@webhooks.command("delete")
@with_client
def delete_webhook(client: Client, webhook_id: str) -> None:
    """Remove a webhook, with the log of its deliveries."""
    client.webhooks.delete(webhook_id)
    console.print("deleted")


@webhooks.command("rotate")
@with_client
def rotate_secret(
    client: Client,
    webhook_id: str,
    grace_hours: Annotated[
        float | None, typer.Option(min=0, help="How long the old secret signs too; 24 when left out.")
    ] = None,
) -> None:
    """Put a new secret in place of a webhook's, and print it, once."""
    grace = None if grace_hours is None else round(grace_hours * 3600)
    _show_once(client.webhooks.rotate_secret(webhook_id, grace_seconds=grace))


@webhooks.command("test")
@with_client
def test_webhook(client: Client, webhook_id: str) -> None:
    """Send a ping now, and show what came of it; exit code 1 where it was not taken."""
    tried = client.webhooks.wait(webhook_id, client.webhooks.test(webhook_id).id)
    console.print(_outcome(tried), highlight=False)
    if tried.state != "delivered":
        raise typer.Exit(1)


@webhooks.command("deliveries")
@with_client
def list_deliveries(
    client: Client,
    webhook_id: str,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, one JSON object a line.")] = False,
) -> None:
    """Show what was sent to a webhook or is to be, and what came of it."""
    table = listing(id_column("dlv"), "when", "event", Column("outcome", overflow="fold"))
    for one in islice(client.webhooks.deliveries(webhook_id, state=state), limit):
        if as_json:
            typer.echo(one.model_dump_json())
        else:
            table.add_row(one.id, age_of(one.created_at), one.type, _outcome(one))
    if not as_json:
        console.print(table if table.row_count else "no deliveries", highlight=False)


@webhooks.command("redeliver")
@with_client
def redeliver(client: Client, webhook_id: str, delivery_id: str) -> None:
    """Send a delivery again at once, under the same id."""
    client.webhooks.redeliver(webhook_id, delivery_id)
    console.print("due now")


def _status(webhook: Webhook) -> str:
    if webhook.enabled:
        return "on" if webhook.failing_since is None else f"failing since {age_of(webhook.failing_since)}"
    return "off" if webhook.disabled_because in (None, "asked") else f"off: {webhook.disabled_because}"


def _outcome(delivery: Delivery) -> str:
    """`delivered (200, 84 ms)`, or what was wrong the last time."""
    if not delivery.tries:
        return delivery.state
    last = delivery.tries[-1]
    answer = last.error or f"{last.status}, {last.milliseconds} ms"
    return f"{delivery.state} ({answer})"


def _show_once(made: NewWebhook) -> None:
    typer.echo(made.secret)
    typer.echo(f"{made.id}: {ONCE}", err=True)
