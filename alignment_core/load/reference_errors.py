"""What a run remembers of its frozen reference, and in which file of the cache the next run finds it."""

from pathlib import Path

import torch

from alignment_core.methods.reference_errors import ReferenceErrors
from alignment_core.spec import AdapterSpec, JobSpec, sha256_of_json
from alignment_core.spec.training import Precision, trains_text_encoders
from alignment_core.versions import versions

FOLDER = "reference_errors"

# What the loss makes of the errors, and where the data lies: neither changes what a reference says of an example.
BESIDE_THE_ERRORS = {
    *("beta", "loss", "label_smoothing", "dmpo_alpha", "reduction", "half_factor", "v_rescale", "flow_beta"),
    *("utility", "baseline", "like_weight", "dislike_weight", "like_probability", "dataset"),
}
READ_OF_TRAINING = {"precision", "embedded_guidance", "validation_fraction", "batch_size", "reference_cache"}


def reference_errors(
    spec: JobSpec,
    *,
    model_sha256: str,
    dataset_sha256: str,
    vae_precision: Precision,
    num_examples: int,
    device: torch.device,
    cache_dir: Path,
) -> ReferenceErrors | None:
    """What is known of the errors of the spec's draws, where it asks to remember them."""
    if spec.training.reference_cache is None:
        return None
    method = spec.method
    key = sha256_of_json(
        {
            "model": model_sha256,
            "data": dataset_sha256,
            **({} if vae_precision == "fp32" else {"vae_precision": vae_precision}),
            "num_examples": num_examples,
            "method": method.model_dump(mode="json", exclude=BESIDE_THE_ERRORS),
            "training": spec.training.model_dump(mode="json", include=READ_OF_TRAINING),
            "timesteps": spec.timesteps.model_dump(mode="json"),
            "adapter": _held_as(spec.adapter),
            "seed": spec.seed,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "versions": versions(),
        }
    )
    return ReferenceErrors.empty(
        num_examples,
        spec.training.reference_cache.draws,
        method.images_per_example,
        device,
        cache_dir / FOLDER / f"{key}.safetensors",
    )


def _held_as(adapter: AdapterSpec) -> str:
    """What decides how the frozen weights are held, and when they read the prompts: rounding follows from both."""
    return f"{adapter.type}, reading" if trains_text_encoders(adapter) else adapter.type
