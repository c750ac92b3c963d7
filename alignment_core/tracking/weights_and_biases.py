"""Weights & Biases, or a server that speaks its protocol: `WANDB_BASE_URL`, `WANDB_API_KEY`, `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE`.

The run's id is the job's, so that a job which goes on goes on in the same run. Its history cannot be taken back there: what it has of
steps after the checkpoint stays, and is not told again, which a resume that computes the same numbers need not do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

import wandb

from alignment_core.tracking.points import Began, Ending, Gains, Picture, Saved, Scalars, Told

STEP = "step"
LONGEST_TAG = 64  # characters, which its server refuses more of


class WeightsAndBiases:
    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._run: Any = None
        self._has_until = -1

    def tell(self, told: Sequence[Told]) -> list[Path]:
        for one in told:
            self._tell(one)
        return []

    def end(self, ending: Ending) -> list[Path]:
        if self._run is not None:
            self._run.finish(exit_code=1 if ending == "failed" else 0)
        return []

    def _tell(self, told: Told) -> None:
        match told:
            case Began():
                self._begin(told)
            case Scalars():
                if told.step > self._has_until:
                    self._run.log({STEP: told.step, **told.values})
            case Picture():
                if told.step > self._has_until:
                    caption = "\n".join(told.prompts)
                    self._run.log({STEP: told.step, "samples": wandb.Image(str(told.path), caption=caption)})
            case Gains():
                self._run.log({"report": wandb.Table(columns=list(told.COLUMNS), data=[[*row] for row in told.rows])})
                self._run.summary.update({**told.values, "report/verdict": told.verdict})
            case Saved():
                pass
            case _:
                assert_never(told)

    def _begin(self, began: Began) -> None:
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
        )
        self._run = wandb.init(
            id=began.run_id,
            name=began.name,
            config={**began.config, "tags": dict(began.tags)},
            tags=[f"{name}:{value}"[:LONGEST_TAG] for name, value in began.tags.items()],
            dir=self._workdir,
            resume="allow",
            settings=settings,
        )
        self._run.define_metric("*", step_metric=STEP)
        if self._run.resumed:
            self._has_until = int(self._run.summary.get(STEP, -1))
