"""Two classifiers of different seeds and shapes: `reward` may be trained against, `judge` never.

A model aligned to a classifier's score can learn to fool that classifier, so prompt-following is
only ever reported by one that no run has seen.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alignment_core.rewards.attribute_classifier import AttributeClassifier, ClassifierConfig
from demo.captions import COLORS, POSITION_PHRASES, SHAPES, SIZES, Caption, all_captions
from demo.renderer import IMAGE_SIZE, render_random

ATTRIBUTES = {
    "color": {color: color for color in COLORS},
    "shape": {shape: shape for shape in SHAPES},
    "position": {phrase: position for position, phrase in POSITION_PHRASES.items()},
    "size": {size: size for size in SIZES},
}


@dataclass(frozen=True)
class ClassifierRecipe:
    """How one of the two is trained; `seed` fixes its weights and its images."""

    name: str
    seed: int
    channels: tuple[int, ...]
    num_steps: int


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise as a small autoencoder leaves them, so that its images can be judged too."""
    n = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(n, 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    noise = noise * 0.08 * torch.rand(n, 1, 1, 1, generator=generator)
    return (images + amount * (blurred - images) + noise).clamp(0, 1)


def targets(captions: list[Caption]) -> dict[str, Tensor]:
    """Class indices by attribute, -100 (ignored by cross entropy) where a caption names none."""
    classes = {"color": COLORS, "shape": SHAPES, "position": (*POSITION_PHRASES,), "size": SIZES}
    return {
        attribute: torch.tensor(
            [-100 if (value := getattr(caption, attribute)) is None else values.index(value) for caption in captions]
        )
        for attribute, values in classes.items()
    }


def train_classifier(
    recipe: ClassifierRecipe, log: Callable[[str], None], batch_size: int = 64, lr: float = 3e-3
) -> AttributeClassifier:
    """Trains on augmented rendered images; cross entropy summed over the named attributes."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    config = ClassifierConfig(IMAGE_SIZE, recipe.channels, ATTRIBUTES)
    classifier = AttributeClassifier(config, name=recipe.name)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=recipe.num_steps)
    started = time.monotonic()
    for step in range(1, recipe.num_steps + 1):
        images, captions = render_random(all_captions(), batch_size, rng)
        logits = classifier.logits(augment(torch.from_numpy(images), generator))
        wanted = targets(captions)
        loss = sum((F.cross_entropy(logits[a], wanted[a]) for a in logits), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == recipe.num_steps:
            seconds = time.monotonic() - started
            log(f"{recipe.name} step {step}/{recipe.num_steps} loss {loss:.4f} {seconds:.0f} s")
    return classifier.requires_grad_(False).eval()


def attribute_accuracy(classifier: AttributeClassifier, images: Tensor, prompts: list[str]) -> dict[str, float]:
    """By attribute, the share of images predicted right among those whose prompt names it."""
    rows = classifier.correct(images, prompts)
    answers = {a: [row[a] for row in rows if a in row] for a in classifier.config.attributes}
    return {a: sum(right) / len(right) for a, right in answers.items() if right}


def rendered_accuracy(folder: Path, seed: int, num_images: int = 2000) -> dict[str, float]:
    """`attribute_accuracy` of the classifier in `folder` on freshly rendered images."""
    images, captions = render_random(all_captions(), num_images, np.random.default_rng(seed))
    classifier = AttributeClassifier.load(folder)
    return attribute_accuracy(classifier, torch.from_numpy(images), [c.text for c in captions])
