"""Commands that bring data in and take checkpoints out."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from alignment_core.spec.exports import ExportFormat
from attune.client import Client
from attune.errors import AttuneError
from attune.preparation import prepare_dataset, read_columns
from attune.refusals import unusable
from attune.resources.data import Dataset
from attune.speaking import with_client
from attune.upload_bar import upload_bar

datasets = typer.Typer(no_args_is_help=True, help="Upload preference data, and look at it.")
checkpoints = typer.Typer(no_args_is_help=True, help="List and download what a job trained.")
Columns = Annotated[
    str | None,
    typer.Option(help="Which column is what, where names do not say so: ROLE=COLUMN,... or JSON; see docs/data.md."),
]
Format = Literal["safetensors", ExportFormat]  # flat, as typer wants it
console = Console()


@datasets.command("upload")
@with_client
def upload_dataset(
    client: Client,
    path: Annotated[Path, typer.Argument(help="A parquet file, a zip, or a folder, which is zipped on its way.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    columns: Columns = None,
    drop_bad_rows: Annotated[
        bool, typer.Option("--drop-bad-rows", help="Leave out rows with an error; the report counts and names them.")
    ] = False,
) -> None:
    """Upload preference data, wait for its check and print its id."""
    console.print(uploaded(client, path, name, columns, drops_bad_rows=drop_bad_rows).id, highlight=False)


def uploaded(
    client: Client, path: Path, name: str | None = None, columns: str | None = None, *, drops_bad_rows: bool = False
) -> Dataset:
    """The data set of a file or folder once it may be trained on; `ValueError` says what its check found."""
    with upload_bar() as progress:
        dataset = client.upload_dataset(
            path,
            name=name,
            columns=read_columns(columns) if columns else None,
            on_bad_row="drop" if drops_bad_rows else "fail",
            progress=progress,
        )
    try:
        return client.wait_for_dataset(dataset.id)
    except AttuneError as error:
        if client.get_dataset(dataset.id).status != "failed":
            raise
        raise ValueError(unusable(client, dataset, error)) from error


@datasets.command("prepare")
def prepare(
    path: Annotated[Path, typer.Argument(help="A file or folder in any form that docs/data.md lists.")],
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    columns: Columns = None,
    drop_bad_rows: Annotated[
        bool, typer.Option("--drop-bad-rows", help="Leave out rows with an error, and name them.")
    ] = False,
) -> None:
    """Write preference data of any form as one parquet file with its images, on this machine."""
    found = prepare_dataset(path, out, read_columns(columns) if columns else None, drops_bad_rows=drop_bad_rows)
    for row in found["dropped"]:
        console.print(f"left out {row}", highlight=False, markup=False, soft_wrap=True)
    left_out = f", {found['num_left_out']} left out, as nothing is said in them" if found["num_left_out"] else ""
    dropped = f", {found['num_dropped']} dropped for an error" if found["num_dropped"] else ""
    what = "pairs" if found["kind"] == "pairs" else "single images"
    console.print(
        f"{out}: {found['num_rows']} {what} of {path} ({found['format']}){left_out}{dropped}",
        highlight=False,
        soft_wrap=True,
    )


@datasets.command("report")
@with_client
def dataset_report(client: Client, dataset_id: str) -> None:
    """Show what the check of a dataset found, as JSON."""
    console.print_json(client.dataset_report(dataset_id).model_dump_json())


@datasets.command("delete")
@with_client
def delete_dataset(client: Client, dataset_id: str) -> None:
    """Remove a dataset for good; refused while a job that has not ended needs it."""
    client.delete_dataset(dataset_id)
    console.print("deleted")


@checkpoints.command("delete")
@with_client
def delete_checkpoint(
    client: Client,
    checkpoint_id: str,
    even_result: Annotated[bool, typer.Option("--even-result", help="Although it is the result of its job.")] = False,
) -> None:
    """Remove a checkpoint of a job that has ended."""
    client.delete_checkpoint(checkpoint_id, even_result=even_result)
    console.print("deleted")


@checkpoints.command("delete-export")
@with_client
def delete_export(client: Client, checkpoint_id: str, format: ExportFormat) -> None:
    """Remove a checkpoint's files in another form; they are made again when they are asked for."""
    client.delete_export(checkpoint_id, format)
    console.print("deleted")


@checkpoints.command("push")
@with_client
def push_checkpoint(
    client: Client,
    identifier: Annotated[str, typer.Argument(help="Id of a checkpoint, or of a job for its result.")],
    repo_id: Annotated[str, typer.Argument(help="NAMESPACE/NAME of a repository of the Hub.")],
    branch: Annotated[str, typer.Option(help="Made from main where it is not there.")] = "main",
    public: Annotated[
        bool, typer.Option("--public", help="Make a repository that is yet to be made a public one.")
    ] = False,
    format: Annotated[
        ExportFormat | None, typer.Option(help="diffusers of a LoRA and merged of a whole model, when left out.")
    ] = None,
) -> None:
    """Push a checkpoint with its model card to the Hub, wait for it and print the commit's address."""
    found = client.result_checkpoint(identifier) if identifier.startswith("job_") else identifier
    push = client.push_checkpoint(found, repo_id, branch=branch, private=not public, format=format)
    console.print(client.wait_for_push(push).url, highlight=False, soft_wrap=True)


@checkpoints.command("delete-push")
@with_client
def delete_push(client: Client, checkpoint_id: str, push_id: str) -> None:
    """Forget a push of a checkpoint; what the Hub has stays there."""
    client.delete_push(checkpoint_id, push_id)
    console.print("deleted")


@checkpoints.command("download")
@with_client
def download_checkpoint(
    client: Client,
    identifier: Annotated[
        str,
        typer.Argument(
            help="Id of a checkpoint, or of a job for its result: the best one where that is known, else the latest."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="Folder to download into; with --format safetensors, kohya or single_file the file to write."
        ),
    ],
    training_state: Annotated[bool, typer.Option(help="Also what training goes on from.")] = False,
    format: Annotated[
        Format | None,
        typer.Option(
            help="What another tool reads: kohya for ComfyUI, A1111, InvokeAI and kohya's scripts, merged for a whole "
            "diffusers folder, single_file for a whole model as one file, peft, diffusers. Waits until a worker has made it."
        ),
    ] = None,
) -> None:
    """Download a checkpoint; diffusers loads the folder. Other tools take other forms."""
    checkpoint_id = client.result_checkpoint(identifier) if identifier.startswith("job_") else identifier
    if format is None:
        client.download_checkpoint(checkpoint_id, target, with_training_state=training_state)
    elif format == "safetensors" or (format == "kohya" and client.has_weights(checkpoint_id, "kohya")):
        client.download_weights(checkpoint_id, target, format=format)
    else:
        client.download_export(checkpoint_id, target, format=format)
    console.print(str(target), highlight=False, soft_wrap=True)
