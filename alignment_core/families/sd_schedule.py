"""The noise schedule of an SD or SDXL folder, and the DDIM grid that everything samples on.

`scheduler_config.json` names a sampler and a schedule. Attune samples by DDIM whatever the sampler, in rollouts, probes and the
report alike, on the schedule and the grid that the file describes. What makes the schedule must stand in the file: a
library's default for a missing beta is a schedule of another model.
"""

from typing import Any

from diffusers import DDIMScheduler

from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import Config, read_config
from alignment_core.families.source import ModelFolder

# Samplers of a discrete beta schedule: diffusers' `KarrasDiffusionSchedulers` but for EDM's, whose noise is another.
BETA_SAMPLERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "HeunDiscrete", "EulerAncestralDiscrete"),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
        *("DEISMultistep", "UniPCMultistep"),
    )
)
SCHEDULES = {"linear": ("beta_start", "beta_end"), "scaled_linear": ("beta_start", "beta_end"), "squaredcos_cap_v2": ()}
# What Stable Diffusion 1.x means where its file, older than the key, does not say; not the defaults of a scheduler class.
SD_1 = {
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "rescale_betas_zero_snr": False,
}
CHOICES = {
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "set_alpha_to_one": (False, True),
    "rescale_betas_zero_snr": (False, True),
}
UNSUPPORTED = {
    "clip_sample": "latents are not in [-1, 1]; set it to false",
    "thresholding": "latents are not pixels; set it to false",
    "use_flow_sigmas": "flow matching has no betas",
}


def read_schedule(folder: ModelFolder) -> DDIMScheduler:
    """The folder's schedule as DDIM; raises `ModelError` with the key of what is missing or not supported."""
    config = read_config(folder.path / "scheduler" / "scheduler_config.json")
    name = config.get("_class_name")
    if name not in BETA_SAMPLERS:
        raise ModelError(
            "model_unsupported",
            f"{config.path}: _class_name is {name!r}; expected a sampler of a beta schedule, such as DDIMScheduler or "
            "PNDMScheduler (flow matching has no betas)",
        )
    for key, reason in UNSUPPORTED.items():
        if config.values.get(key):
            raise ModelError("model_unsupported", f"{config.path}: {key} is {config.values[key]!r}; {reason}")
    known = _sampling(config)
    if known["rescale_betas_zero_snr"] and known["prediction_type"] == "epsilon":
        raise ModelError(
            "model_unsupported",
            f"{config.path}: rescale_betas_zero_snr is for v_prediction: pure noise says nothing to a model of epsilon",
        )
    try:
        return DDIMScheduler(clip_sample=False, **_betas(config), **known)
    except (TypeError, ValueError) as error:
        raise ModelError("model_invalid", f"{config.path}: no noise schedule: {error}") from error


def _sampling(config: Config) -> dict[str, Any]:
    found = {key: config.values.get(key, absent) for key, absent in SD_1.items()}
    for key, choices in CHOICES.items():
        if found[key] not in choices:
            expected = " or ".join(str(choice) for choice in choices)
            raise ModelError("model_unsupported", f"{config.path}: {key} is {found[key]!r}; expected {expected}")
    offset = found["steps_offset"]
    if not isinstance(offset, int) or offset < 0:
        raise ModelError("model_invalid", f"{config.path}: steps_offset is {offset!r}; expected 0 or more")
    return found


def _betas(config: Config) -> dict[str, Any]:
    num = config.count("num_train_timesteps")
    trained = config.values.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or len(trained) != num:
            raise ModelError(
                "model_invalid", f"{config.path}: trained_betas: expected num_train_timesteps ({num}) numbers"
            )
        return {"num_train_timesteps": num, "trained_betas": trained}
    schedule = config.get("beta_schedule")
    if schedule not in SCHEDULES:
        raise ModelError(
            "model_unsupported", f"{config.path}: beta_schedule is {schedule!r}; expected {', '.join(SCHEDULES)}"
        )
    ends = {key: config.get(key) for key in SCHEDULES[schedule]}
    return {"num_train_timesteps": num, "beta_schedule": schedule, **ends}
