"""What a report's images take, of the policy and of the model that it started from, by part: `python -m benchmarks.evaluation`.

Attune draws and judges paired images in batches of several prompts; the plain loop (`benchmarks/step/plain_drawing.py`) asks
diffusers' own pipeline prompt by prompt: for all seeds of a prompt at once, and for one image at a time. First that all draw the
same images, to 1e-5 of a pixel's range; then turns in alternation, images/s, and the seconds of one turn by part. `--size sd15`,
`sdxl` and `sd35m` want a GPU.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment_core import JobSpec
from alignment_core.evaluation.compare import plan_comparison
from alignment_core.evaluation.contenders import initial_model
from alignment_core.evaluation.draw_and_judge import DrawPlan, Judges, draw_and_judge
from alignment_core.protocols import RewardModel, Sampler
from alignment_core.training.run import Run
from benchmarks.drawing import farthest, networks_of_plain, networks_of_run, report, row_of, turns_in_alternation
from benchmarks.parts import PartSeconds
from benchmarks.step.cases import CASES, GUIDANCE, NUM_STEPS, brightness, load, same_weights, spec_of
from benchmarks.step.plain import Plain
from benchmarks.step.plain_drawing import compared
from benchmarks.step.random_models import PROMPTS, save_model, save_pairs
from benchmarks.step.sizes import SIZES, Size

SEEDS_PER_PROMPT = 2


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    size = SIZES[arguments.size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(size, folder / "model")
        save_pairs(size, folder / "pairs.parquet")
        row = measure(size, folder, arguments.precision, arguments.prompts, arguments.turns)
        report(iter([row]), arguments.out, size=arguments.size, precision=arguments.precision)


def measure(size: Size, folder: Path, precision: str, num_prompts: int, num_turns: int) -> dict[str, Any]:
    """The row: whether the images are the same, how long each way takes, and what of it each part."""
    setting = Setting.loaded(size, folder, precision, PROMPTS[:num_prompts])
    apart = setting.images_differ_by()
    turns: dict[str, Callable[[], object]] = {
        "ours": setting.ours,
        "prompt by prompt": partial(setting.theirs, SEEDS_PER_PROMPT),
        "one image at a time": partial(setting.theirs, 1),
    }
    parts = {}
    for name, turn in turns.items():
        networks = networks_of_run(setting.run.family) if name == "ours" else networks_of_plain(setting.plain)
        with setting.seconds.timing(networks):
            turn()
        parts[name] = setting.seconds.by_part
    times = turns_in_alternation(turns, num_turns)
    return row_of("report", precision, 2 * setting.plan.num_images, apart, times, parts)


@dataclass
class Setting:
    """Both ways, and what they draw."""

    run: Run
    plain: Plain
    plan: DrawPlan
    seconds: PartSeconds

    @classmethod
    def loaded(cls, size: Size, folder: Path, precision: str, prompts: list[str]) -> "Setting":
        asked = spec_of(CASES[0], size, folder / "model", folder / "pairs.parquet", precision)
        evaluation = {
            "prompts": prompts,
            "rewards": [{"type": "brightness"}],
            "seeds_per_prompt": SEEDS_PER_PROMPT,
            "num_inference_steps": NUM_STEPS,
            "guidance_scale": GUIDANCE,
        }
        spec = JobSpec.model_validate({**asked.model_dump(mode="json"), "evaluation": evaluation})
        run = load(spec, folder / "cache")
        plain = Plain(folder / "model", run.family.device, resolution=size.resolution, is_full=False)
        same_weights(run, plain)
        plan = plan_comparison(
            prompts,
            seeds_per_prompt=SEEDS_PER_PROMPT,
            batch_size=spec.evaluation.batch_size,
            grid_prompts=len(prompts),
            seed=spec.seed,
        )
        return cls(run, plain, plan, PartSeconds())

    @property
    def contenders(self) -> dict[str, Sampler]:
        run = self.run
        base = initial_model(run.family, run.actors, run.draw).sample
        return {"base": base, "policy": lambda prompts, seeds: run.draw(run.actors.denoiser, prompts, seeds)}

    def ours(self) -> None:
        judges: dict[str, RewardModel] = {
            name: self.seconds.timed("reward", reward)  # pyright: ignore[reportAssignmentType]
            for name, reward in self.run.rewards.items()
        }
        for _ in draw_and_judge(self.contenders, self.plan, Judges(judges)):
            pass

    def theirs(self, together: int) -> dict[str, tuple[Tensor, list[float]]]:
        reward = self.seconds.timed("reward", brightness)
        return compared(
            self.plain,
            self.plan.prompts,
            self.plan.seeds,
            reward,
            num_steps=NUM_STEPS,
            guidance=GUIDANCE,
            together=together,
        )

    def images_differ_by(self) -> float:
        theirs = self.theirs(1)
        gaps = []
        for name, sample in self.contenders.items():
            drawn = torch.cat([sample(prompts, seeds) for prompts, seeds in self.plan.batches()])
            gaps.append(farthest(drawn, theirs[name][0]))
        return max(gaps)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of Attune's networks")
    parser.add_argument("--prompts", type=int, default=4, help=f"of {len(PROMPTS)}, two images each (default 4)")
    parser.add_argument("--turns", type=int, default=3, help="timed turns of each (default 3)")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"), help="where .json and .svg are written")
    return parser


if __name__ == "__main__":
    main()
