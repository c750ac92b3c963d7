"""A run without any server.

    python -m alignment_core run SPEC.yaml --workdir DIR      one JSON event a line on stdout, logs on stderr
    python -m alignment_core compare DIR --base STEP --policy STEP    the same report of any two checkpoints
    python -m alignment_core evaluate SPEC.yaml --workdir DIR    any models on the same prompts and seeds
    python -m alignment_core evaluate SPEC.yaml --verify scores.parquet    some of their images once more
    python -m alignment_core draw SPEC.yaml --workdir DIR     what some models draw, a PNG an image, for people to judge
    python -m alignment_core standings scores.parquet         its table as JSON, from the scores alone
    python -m alignment_core check DATA                       the preflight report of a dataset as JSON
    python -m alignment_core check-lora FILE                  what a LoRA file holds as JSON
    python -m alignment_core model SOURCE                     what the files of a model say, as JSON; nothing is loaded
    python -m alignment_core prepare DATA --out pairs.parquet    the same data as canonical parquet
    python -m alignment_core export CHECKPOINT --format kohya --out DIR    a checkpoint as another tool reads it
    python -m alignment_core wait      a run that is told on stdin what it is, once all is imported; for workers

Exit codes of `run`, `evaluate` and `draw`: 0 completed, 75 stopped and resumable, 1 failed (the last line is a `run_failed` event). Of `check` and
`check-lora`: 0 usable, 3 read but not usable, 1 not readable (a `run_failed` line). Of `prepare`, `model`, `export` and `standings`: 0
done, 1 not (a `run_failed` line).
SIGTERM and SIGINT ask it to save and leave, and so does the end of stdin when stdin is a pipe: a parent that dies takes
its run with it.
"""

import logging
import sys

from alignment_core.commands.arguments import parser
from alignment_core.commands.compare import compare
from alignment_core.commands.data import check, prepare
from alignment_core.commands.evaluate import evaluate, standings
from alignment_core.commands.export import export
from alignment_core.commands.look import check_lora, model
from alignment_core.commands.run import run
from alignment_core.commands.wait import wait
from alignment_core.quiet import silence_imports


def main() -> int:
    asked = parser(__doc__).parse_args()
    silence_imports()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    match asked.command:
        case "check":
            return check(asked.data, asked.columns, asked.on_bad_row, asked.browsing, asked.filename)
        case "check-lora":
            return check_lora(asked.file)
        case "prepare":
            return prepare(asked.data, asked.out, asked.columns, asked.on_bad_row)
        case "model":
            return model(asked.source)
        case "export":
            return export(asked)
        case "compare":
            return compare(asked.workdir, asked.base, asked.policy, asked.sources, asked.cache_dir)
        case "evaluate" | "draw":
            return evaluate(asked)
        case "standings":
            return standings(asked.scores)
        case "wait":
            return wait()
        case _:
            return run(asked)


if __name__ == "__main__":
    sys.exit(main())
