"""What the demo model has to show before it is shipped, judged on captions it never saw."""

from collections.abc import Mapping

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from alignment_core.rewards.attribute_classifier import AttributeClassifier
from demo.captions import held_out_captions
from demo.classifiers import attribute_accuracy
from demo.sampling import draw_samples

THRESHOLDS: Mapping[str, float] = {"color": 0.98, "shape": 0.80, "position": 0.95}


def judged_accuracy(
    pipeline: StableDiffusionPipeline, judge: AttributeClassifier, per_caption: int, seed: int
) -> dict[str, float]:
    """By attribute, the share of samples for held-out captions that the judge finds right."""
    prompts = [caption.text for caption in held_out_captions()] * per_caption
    return attribute_accuracy(judge, draw_samples(pipeline, prompts, seed), prompts)


def failed_gates(accuracy: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
    """A sentence for each attribute below its threshold; empty when every gate passes."""
    return [
        f"{attribute} {accuracy[attribute]:.3f} is below {threshold}"
        for attribute, threshold in thresholds.items()
        if accuracy[attribute] < threshold
    ]
