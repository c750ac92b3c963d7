"""What drawing an iteration's trajectories takes, by online method and by part: `python -m benchmarks.rollout`.

Attune against the loop of the published scripts (`benchmarks/step/plain_drawing.py`), with a batch of the same prompts and with one
prompt at a time; nothing is trained. First that both draw the same images, to 1e-5 of a pixel's range, from the same noise; then
turns in alternation, images/s, and the seconds of one turn by part. `--size sd15` and `sdxl` want a GPU.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment_core.load.online import OnlineMethod
from alignment_core.methods.tailorpo import TailorPO
from alignment_core.rollouts.setup import RolloutBatch
from alignment_core.training.run import Run
from benchmarks.drawing import farthest, networks_of_plain, networks_of_run, report, row_of, turns_in_alternation
from benchmarks.parts import PartSeconds
from benchmarks.step.cases import CASES, GUIDANCE, NUM_STEPS, Case, brightness, load, same_weights, spec_of
from benchmarks.step.plain import Plain
from benchmarks.step.plain_drawing import branched, trajectories
from benchmarks.step.plain_online import Walk
from benchmarks.step.random_models import save_model, save_pairs
from benchmarks.step.sizes import SIZES, Size


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    size = SIZES[arguments.size]
    names = arguments.methods or METHODS
    cases = [case for case in CASES if case.is_online and case.is_of(size) and case.method in names]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(size, folder / "model")
        save_pairs(size, folder / "pairs.parquet")
        rows = (measure(case, size, folder, arguments.precision, arguments.turns) for case in cases)
        report(rows, arguments.out, size=arguments.size, precision=arguments.precision)


METHODS = [case.method for case in CASES if case.is_online]


def measure(case: Case, size: Size, folder: Path, precision: str, num_turns: int) -> dict[str, Any]:
    """One row: whether the images are the same, how long each way takes, and what of it each part."""
    setting = Setting.loaded(case, size, folder, precision)
    apart = setting.images_differ_by()
    turns: dict[str, Callable[[], object]] = {
        "ours": setting.ours,
        "their batch": partial(setting.theirs, setting.num_prompts),
        "one prompt at a time": partial(setting.theirs, 1),
    }
    parts = {}
    for name, turn in turns.items():
        networks = networks_of_run(setting.run.family) if name == "ours" else networks_of_plain(setting.plain)
        with setting.seconds.timing(networks):
            turn()
        parts[name] = setting.seconds.by_part
    times = turns_in_alternation(turns, num_turns)
    return row_of(case.method, precision, setting.num_images, apart, times, parts)


@dataclass
class Setting:
    """Both of a method, and what an iteration of it draws."""

    run: Run
    plain: Plain
    walk: Walk
    method: OnlineMethod
    seconds: PartSeconds

    @classmethod
    def loaded(cls, case: Case, size: Size, folder: Path, precision: str) -> "Setting":
        run = load(spec_of(case, size, folder / "model", folder / "pairs.parquet", precision), folder / "cache")
        plain = Plain(folder / "model", run.family.device, resolution=size.resolution, is_full=case.is_full)
        same_weights(run, plain)
        method, seconds = run.method, PartSeconds()
        assert isinstance(method, OnlineMethod)
        timed: Any = [seconds.timed("reward", reward) for reward in method.setup.rewards]
        method = replace(method, setup=replace(method.setup, rewards=timed))
        return cls(run, plain, Walk(plain, NUM_STEPS, GUIDANCE), method, seconds)

    @property
    def num_prompts(self) -> int:
        return len(self._rollouts().prompts)

    @property
    def branches(self) -> int:
        """Trajectories of a prompt."""
        return 2 if self.run.spec.method.type == "d3po" else 1

    @property
    def num_images(self) -> int:
        """Trajectories that an iteration draws; TailorPO's are judged at several of their states."""
        return self.num_prompts * self.branches

    def ours(self) -> Tensor:
        """The last states that are judged."""
        if isinstance(self.method, TailorPO):
            num = self.method.num_trained_steps
            *_, last = islice(self.method.batches(self.run.actors, self.run.timesteps, 0), num)
            return last.x_w
        drawn = self.method.draw_iteration(self._rollouts(), 0, {})
        return torch.cat([drawn[name][:, -1] for name in ("states", "states_0", "states_1") if name in drawn])

    def theirs(self, batch_size: int) -> Tensor:
        """The same of the plain loop, from the same noise."""
        rollouts, reward = self._rollouts(), self.seconds.timed("reward", brightness)
        drawn_of = (self.walk, rollouts.prompts, rollouts.draws, reward)
        if isinstance(self.method, TailorPO):
            return branched(*drawn_of, trained=self.method.trained, batch_size=batch_size)
        return trajectories(*drawn_of, branches=self.branches, batch_size=batch_size)[0]

    def images_differ_by(self) -> float:
        decode, device = self.run.family.decode, self.run.family.device
        ours, theirs = self.ours().to(device), self.theirs(self.num_prompts)
        with torch.no_grad():
            return max(
                farthest(decode(one[None]), decode(other[None])) for one, other in zip(ours, theirs, strict=True)
            )

    def _rollouts(self) -> RolloutBatch:
        method, actors = self.method, self.run.actors
        if isinstance(method, TailorPO):
            return method.setup.rollout_batch(actors, 0, method.batch_size * method.accumulation)
        return method.rollout_batch(actors, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of Attune's networks")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these")
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each (default 5)")
    parser.add_argument("--out", type=Path, default=Path("build/rollout"), help="where .json and .svg are written")
    return parser


if __name__ == "__main__":
    main()
