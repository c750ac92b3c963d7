"""What may be typed after `python -m alignment_core`."""

import argparse
from pathlib import Path
from typing import get_args

from alignment_core.spec.exports import ExportFormat
from alignment_core.spec.trackers import TrackerName

Commands = argparse._SubParsersAction  # argparse has no public name for what it gives


def parser(description: str | None) -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m alignment_core", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = root.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_compare(commands)
    _add_readers(commands)
    _add_data(commands)
    _add_export(commands)
    _add_evaluate(commands)
    _add_draw(commands)
    standings = commands.add_parser("standings", help="compute an evaluation's table from its scores alone")
    standings.add_argument("scores", type=Path, help="scores.parquet of an evaluation")
    commands.add_parser("wait", help="import everything, and run what a line on stdin says; for workers")
    return root


def _add_run(commands: Commands) -> None:
    run = commands.add_parser("run", help="align a model")
    run.add_argument("spec", type=Path, help="job spec, YAML or JSON")
    run.add_argument(
        "--sources", type=Path, default=None, help="JSON file that says where the spec's catalog names and datasets are"
    )
    run.add_argument(
        "--workdir", type=Path, required=True, help="receives checkpoints and the report; resumed if it holds some"
    )
    run.add_argument(
        "--cache-dir", type=Path, default=None, help="VAE posteriors and text embeddings (default ~/.cache/attune)"
    )
    run.add_argument(
        "--resume-from", type=Path, default=None, help="checkpoint of another run to begin from; its spec may differ"
    )
    run.add_argument(
        "--track",
        action="append",
        default=[],
        choices=get_args(TrackerName),
        help="a tool that hears of the run as it goes on; may be given several times (docs/trackers.md)",
    )
    run.add_argument("--check-only", action="store_true", help="end once what is tried before a run has passed")


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="compare two checkpoints on the prompts of a work folder's spec")
    compare.add_argument("workdir", type=Path, help="work folder of a run; receives comparisons/")
    for side, default in (("base", "initial"), ("policy", "result")):
        help_text = (
            f"initial, result, latest, a step, or the path of a checkpoint or another work folder (default {default})"
        )
        compare.add_argument(f"--{side}", default=default, help=help_text)
    _add_places(compare)


def _add_readers(commands: Commands) -> None:
    """What reads the files of a model, for the service."""
    check_lora = commands.add_parser("check-lora", help="say what a LoRA file holds")
    check_lora.add_argument("file", type=Path, help="a safetensors file under PEFT's, diffusers' or kohya's names")
    model = commands.add_parser("model", help="read what the files of a model say of it")
    model.add_argument("source", help='JSON such as {"type": "local", "path": FOLDER}, or a hub source')


def _add_data(commands: Commands) -> None:
    check = commands.add_parser("check", help="preflight a preference dataset")
    check.add_argument("--browsing", type=Path, default=None, help="a new file: thumbnails and rows, to be looked at")
    check.add_argument("--filename", default=None, help="what the data is called in what --browsing writes")
    prepare = commands.add_parser("prepare", help="write a preference dataset of any form as canonical parquet")
    prepare.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    for command in (check, prepare):
        command.add_argument("data", type=Path, help="a file or folder; docs/data.md lists the forms")
        command.add_argument(
            "--on-bad-row",
            choices=("fail", "drop"),
            default="fail",
            help="whether rows with an error stop it, or are left out and counted (default fail)",
        )
        command.add_argument("--columns", help='JSON: role to column, such as {"prompt": "caption"}')


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="write a checkpoint as another tool reads it, with a model card")
    export.add_argument("checkpoint", type=Path, help="the folder of a checkpoint")
    export.add_argument("--format", choices=get_args(ExportFormat), required=True, help="docs/exports.md has the table")
    export.add_argument("--out", type=Path, required=True, help="an empty folder, or one that is made")
    _add_places(export)
    export.add_argument(
        "--report", type=Path, default=None, help="the run's report.json, whose figures the card repeats"
    )


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="compare any models on the same prompts and seeds")
    evaluate.add_argument("spec", type=Path, help="evaluation spec, YAML or JSON: docs/evaluations.md")
    evaluate.add_argument("--sources", type=Path, default=None, help="as for run")
    evaluate.add_argument(
        "--workdir",
        type=Path,
        default=Path("evaluation"),
        help="receives the report; gone on with if it holds images of the spec",
    )
    evaluate.add_argument("--cache-dir", type=Path, default=None, help="as for run")
    evaluate.add_argument(
        "--verify",
        type=Path,
        default=None,
        help="a scores.parquet of this spec, of which some images are drawn once more",
    )
    evaluate.add_argument("--prompts", type=int, default=4, help="on how many prompts (default 4)")


def _add_draw(commands: Commands) -> None:
    draw = commands.add_parser("draw", help="draw prompts with some models, for people to judge")
    draw.add_argument("spec", type=Path, help="spec of candidates, YAML or JSON: docs/labeling.md")
    draw.add_argument("--sources", type=Path, default=None, help="as for run")
    draw.add_argument("--workdir", type=Path, default=Path("candidates"), help="receives the images")
    draw.add_argument("--cache-dir", type=Path, default=None, help="as for run")
    draw.add_argument("--already", type=Path, default=None, help="JSON that says which images need not be drawn")


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--sources", type=Path, default=None, help="as for run")
    command.add_argument("--cache-dir", type=Path, default=None, help="as for run")
