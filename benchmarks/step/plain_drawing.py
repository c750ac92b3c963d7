"""Drawing and judging as the published scripts do it: what `rollout.py` and `evaluation.py` are measured against.

A batch of prompts at a time, or one: captions are read for every batch, guidance doubles the batch, and every image is decoded by
itself whole and scored at once. Nothing of Attune is imported here; what it drew by can be given, so that images can be compared.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from benchmarks.step.plain import Plain
from benchmarks.step.plain_online import Reward, Walk


class Noise(Protocol):
    """Noise by trajectory: what each starts from, and what step `index` adds to it in its `branch`."""

    def start(self, trajectories: Sequence[int]) -> Tensor: ...

    def noise(self, trajectories: Sequence[int], index: int, branch: int = 0) -> Tensor: ...


def trajectories(
    walk: Walk, prompts: Sequence[str], noise: Noise, reward: Reward, *, branches: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The last states, `branches` of a prompt, and the scores of their images: D3PO's, DDPO's and DPOK's."""
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(branches)]
    for rows in _batches(len(prompts), batch_size):
        text, empty = _captions(walk.plain, [prompts[row] for row in rows])
        x = noise.start(rows).to(walk.plain.device)
        for branch in range(branches):
            states, _ = walk.draw(
                x, text, empty, lambda index, rows=rows, branch=branch: noise.noise(rows, index, branch)
            )
            found[branch].append((states[-1], reward(walk.decode(states[-1]))))
    drawn = [part for parts in found for part in parts]
    return torch.cat([x_0 for x_0, _ in drawn]), torch.cat([scores for _, scores in drawn])


@torch.no_grad()
def branched(
    walk: Walk, prompts: Sequence[str], noise: Noise, reward: Reward, *, trained: Sequence[int], batch_size: int
) -> Tensor:
    """The winner at the last of the `trained` steps, of trajectories that go on to their image: TailorPO's."""
    last = []
    for rows in _batches(len(prompts), batch_size):
        text, empty = _captions(walk.plain, [prompts[row] for row in rows])
        x = noise.start(rows).to(walk.plain.device)
        for index, number in enumerate(walk.timesteps):
            t = torch.full((len(x),), number, device=x.device)
            mean, sigma = walk.mean_and_sigma(x, walk.guided(walk.plain.policy, x, t, text, empty), t)
            branches = range(2 if index in trained else 1)
            candidates = [mean + sigma * noise.noise(rows, index, branch).to(x) for branch in branches]
            x = candidates[0]
            if index in trained:
                later = t - walk.plain.model.scheduler.config.num_train_timesteps // walk.num_steps
                foreseen = [
                    walk.foresee(one, walk.guided(walk.plain.policy, one, later, text, empty), later)
                    for one in candidates
                ]
                scores = [reward(walk.decode(one)) for one in foreseen]
                x = torch.where((scores[0] >= scores[1]).reshape(-1, 1, 1, 1), *candidates)
            if index == trained[-1]:
                last.append(x)
        reward(walk.decode(x))
    return torch.cat(last)


def _captions(plain: Plain, prompts: Sequence[str]) -> tuple[Any, Any]:
    with torch.no_grad():
        return plain.captions(prompts), plain.captions([""])


def _batches(num: int, size: int) -> Iterator[list[int]]:
    for start in range(0, num, size):
        yield list(range(num))[start : start + size]


# --- a report --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def compared(
    plain: Plain,
    prompts: Sequence[str],
    seeds: Sequence[Sequence[int]],
    reward: Reward,
    *,
    num_steps: int,
    guidance: float,
    together: int,
) -> dict[str, tuple[Tensor, list[float]]]:
    """Images in [0, 1] and scores of the model before and after, by diffusers' own pipeline, `together` images of a prompt at once."""
    sampler = _sampler(plain, num_steps, guidance)
    found = {}
    for name in ("base", "policy"):
        if name == "base":
            plain.network.disable_adapters()
        images, scores = [], []
        for prompt, own in zip(prompts, seeds, strict=True):
            for start in range(0, len(own), together):
                drawn = sampler(prompt, own[start : start + together])
                images.append(drawn)
                scores += reward((255 * drawn).round() / 255).tolist()
        plain.network.enable_adapters()
        found[name] = (torch.cat(images), scores)
    return found


def _sampler(plain: Plain, num_steps: int, guidance: float) -> Callable[[str, Sequence[int]], Tensor]:
    model = plain.model
    pipeline = model.pipeline
    if model.kind != "sd3":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def sample(prompt: str, seeds: Sequence[int]) -> Tensor:
        return pipeline(
            prompt,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=num_steps,
            guidance_scale=guidance,
            output_type="pt",
        ).images

    return sample
