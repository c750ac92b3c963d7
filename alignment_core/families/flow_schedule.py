"""The noise levels of a flow-matching folder: `scheduler_config.json` of diffusers' `FlowMatchEulerDiscreteScheduler`."""

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import Config, read_config
from alignment_core.families.source import ModelFolder

SAMPLER = "FlowMatchEulerDiscreteScheduler"
# Other levels, or other steps between them, than the path has.
UNSUPPORTED = (
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    *("invert_sigmas", "shift_terminal", "stochastic_sampling"),
)
DYNAMIC = "use_dynamic_shifting"  # the shift follows the number of an image's places
BY_PLACES = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
EXPONENTIAL = "exponential"


def read_flow_schedule(folder: ModelFolder, *, may_be_dynamic: bool = False) -> FlowMatchEulerDiscreteScheduler:
    """The folder's levels; raises `ModelError` with the key of what is missing or not supported."""
    config = read_config(folder.path / "scheduler" / "scheduler_config.json")
    if (name := config.get("_class_name")) != SAMPLER:
        raise ModelError("model_unsupported", f"{config.path}: _class_name is {name!r}; expected {SAMPLER}")
    for key in UNSUPPORTED if may_be_dynamic else (*UNSUPPORTED, DYNAMIC):
        if config.values.get(key):
            raise ModelError(
                "model_unsupported",
                f"{config.path}: {key} is {config.values[key]!r}; expected levels with a fixed shift"
                + (" or one that follows the image's size" if may_be_dynamic else ""),
            )
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=config.count("num_train_timesteps"),
        shift=positive(config, "shift"),
        **(_dynamic(config) if may_be_dynamic and config.get(DYNAMIC) else {}),
    )


def _dynamic(config: Config) -> dict[str, Any]:
    if (kind := config.values.get("time_shift_type", EXPONENTIAL)) != EXPONENTIAL:  # diffusers', where it is left out
        raise ModelError("model_unsupported", f"{config.path}: time_shift_type is {kind!r}; expected {EXPONENTIAL!r}")
    found = {key: positive(config, key) for key in BY_PLACES}
    if found["max_image_seq_len"] <= found["base_image_seq_len"]:
        raise ModelError(
            "model_invalid",
            f"{config.path}: max_image_seq_len is {found['max_image_seq_len']:g}; expected more than base_image_seq_len",
        )
    return {DYNAMIC: True, **found}


def positive(config: Config, key: str) -> float:
    """The value of a key that is a number above 0."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ModelError("model_invalid", f"{config.path}: {key} is {value!r}; expected a number above 0")
    return float(value)
