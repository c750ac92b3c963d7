"""Commands that compare models and show what came of it."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from alignment_core.reports import ProofReport, RewardComparison
from attune.cli_contests import newest, num_images
from attune.client import Client
from attune.failing import fail
from attune.resources.evaluations import Evaluation, EvaluationValidation
from attune.speaking import with_client
from attune.specs import read_spec
from attune.tables import listing, memory_of

evaluations = typer.Typer(no_args_is_help=True, help="Compare models on the same prompts and seeds.")
console = Console()
PAUSE_SECONDS = 2.0  # between two lines that say how far it is


@with_client
def evaluate(
    client: Client,
    file: Annotated[Path, typer.Argument(help="An evaluation spec, YAML or JSON: docs/evaluations.md has some.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Save every score here, as parquet.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for its end and show the table.")] = True,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be wrong, and what it would take.")] = False,
) -> None:
    """Compare models on the same prompts and seeds: a base, checkpoints, uploads, published fine-tunes."""
    written = read_spec(file)
    if dry_run:
        _show_validation(client.evaluations.validate(written.get("spec", written)), file)
        return
    found = client.evaluations.create(written.get("spec", written), name=name or written.get("name"))
    console.print(found.id, highlight=False)
    if wait:
        _end_with(client, _followed(client, found.id), scores)


@evaluations.command("list")
@with_client
def list_evaluations(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest evaluations."""
    table = newest("eval", client.evaluations.list(), limit)
    console.print(table if table.row_count else "no evaluations")


@evaluations.command("get")
@with_client
def get_evaluation(client: Client, evaluation_id: str) -> None:
    """Show one evaluation as JSON."""
    console.print_json(client.evaluations.get(evaluation_id).model_dump_json())


@evaluations.command("report")
@with_client
def show_report(
    client: Client,
    evaluation_id: str,
    scores: Annotated[Path | None, typer.Option(help="Save every score here, as parquet.")] = None,
    html: Annotated[Path | None, typer.Option(help="Save the page of a comparison here.")] = None,
    contender: Annotated[str | None, typer.Option(help="Of which contender; the first one when left out.")] = None,
) -> None:
    """Show the table of an evaluation that has ended."""
    console.print(table_of(client.evaluations.report(evaluation_id)))
    if scores is not None:
        console.print(str(client.evaluations.download_scores(evaluation_id, scores)), highlight=False, soft_wrap=True)
    if html is not None:
        saved = client.evaluations.download_page(evaluation_id, html, contender=contender)
        console.print(str(saved), highlight=False, soft_wrap=True)


@evaluations.command("verify")
@with_client
def verify(
    client: Client,
    evaluation_id: str,
    prompts: Annotated[int, typer.Option(min=1, help="On how many prompts.")] = 4,
) -> None:
    """Have some of an evaluation drawn once more, and say whether it is the same."""
    asked = client.evaluations.verify(evaluation_id, num_prompts=prompts)
    found = client.evaluations.wait_for_verification(evaluation_id, asked.id)
    if found.report is None:
        fail(found.error.message if found.error is not None else f"the verification is {found.status}")
    report = found.report
    console.print(f"{report.outcome}: {report.num_equal_images} of {report.num_images} images are equal")
    for one in report.scores:
        console.print(
            f"{one.name}: {one.num_equal} of {report.num_images} scores are equal, the largest difference is {one.largest:.3g}"
        )
    if report.outcome == "different":
        raise typer.Exit(1)


@evaluations.command("logs")
@with_client
def logs(client: Client, evaluation_id: str) -> None:
    """Show the end of what an evaluation's processes printed."""
    console.print(client.evaluations.logs(evaluation_id), highlight=False, markup=False, soft_wrap=True)


@evaluations.command("pictures")
@with_client
def pictures(
    client: Client, evaluation_id: str, out: Annotated[Path, typer.Option(help="The folder that receives them.")]
) -> None:
    """Save a picture for each contender beside the anchor, in the order of the report."""
    for path in client.evaluations.download_pictures(evaluation_id, out):
        console.print(str(path), highlight=False, soft_wrap=True)


@evaluations.command("cancel")
@with_client
def cancel(client: Client, evaluation_id: str) -> None:
    """Stop an evaluation for good."""
    console.print(client.evaluations.cancel(evaluation_id).status)


@evaluations.command("pause")
@with_client
def pause(client: Client, evaluation_id: str) -> None:
    """Have an evaluation leave the machine to others; what it has drawn is kept."""
    console.print(client.evaluations.pause(evaluation_id).status)


@evaluations.command("resume")
@with_client
def resume(client: Client, evaluation_id: str) -> None:
    """Queue one again that failed or is paused."""
    console.print(client.evaluations.resume(evaluation_id).status)


@evaluations.command("delete")
@with_client
def delete(client: Client, evaluation_id: str) -> None:
    """Remove an evaluation that has ended, for good."""
    client.evaluations.delete(evaluation_id)
    console.print("deleted")


def _show_validation(found: EvaluationValidation, file: Path) -> None:
    for warning in found.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    console.print(num_images(found, file), highlight=False)
    estimate = found.estimate or {}
    if (total := (estimate.get("duration") or {}).get("total")) is not None:
        console.print(f"{total['expected']:g} seconds ({total['low']:g} to {total['high']:g})", highlight=False)
    if (memory := estimate.get("memory")) is not None:
        console.print(f"{memory_of(memory['peak_gib'])}, for {memory['contender']}", highlight=False)
    console.print("the evaluation would be taken")


def table_of(report: ProofReport) -> Table:
    """A line for each contender and judge: the gain over the anchor with its interval, and the share of pairs won."""
    table = listing("contender", "judge", report.anchor, "mean", "gain", "interval", "p", "won")
    for names in table.columns[:2]:  # on a narrow terminal they take more lines, and no figure is cut
        names.no_wrap, names.overflow = False, "fold"
    for one in report.comparisons:
        lines = [*one.rewards, *([one.prompt_following] if one.prompt_following else [])]
        for line in lines:
            mark = " *" if one.policy.label == report.best and line is lines[0] else ""
            table.add_row(f"{one.policy.label}{mark}", *_cells(line))
    table.caption = "* the best: better than the anchor beyond the correction" if report.best else None
    return table


def _cells(line: RewardComparison) -> list[str]:
    p = line.p_value if line.holm_p_value is None else line.holm_p_value
    interval = f"{line.gain_interval.low:+.4f} to {line.gain_interval.high:+.4f}"
    means = [f"{line.base_mean:.4f}", f"{line.policy_mean:.4f}"]
    return [line.name, *means, f"{line.gain:+.4f}", interval, "" if p is None else f"{p:.2g}", f"{line.win_rate:.0%}"]


def _followed(client: Client, evaluation_id: str) -> Evaluation:
    not_before = 0.0
    for found in client.evaluations.events(evaluation_id):
        event = found.event
        if event is not None and event.type == "images_scored":
            if time.monotonic() > not_before or event.done == event.total:
                not_before = time.monotonic() + PAUSE_SECONDS
                console.print(f"{event.done} of {event.total} images", highlight=False)
        elif event is not None and event.type == "warning_raised":
            console.print(f"warning: {event.message}", highlight=False)
    return client.evaluations.wait(evaluation_id)


def _end_with(client: Client, ended: Evaluation, scores: Path | None) -> None:
    if ended.status != "succeeded":
        fail(ended.error.message if ended.error is not None else f"the evaluation is {ended.status}")
    console.print(table_of(client.evaluations.report(ended.id)))
    if scores is not None:
        client.evaluations.download_scores(ended.id, scores)
