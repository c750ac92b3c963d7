"""The noise levels of a flow-matching folder: `scheduler_config.json` of diffusers' `FlowMatchEulerDiscreteScheduler`."""

from diffusers import FlowMatchEulerDiscreteScheduler

from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import Config, read_config
from alignment_core.families.source import ModelFolder

SAMPLER = "FlowMatchEulerDiscreteScheduler"
# Other levels, or other steps between them, than the path has.
UNSUPPORTED = (
    *("use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    *("invert_sigmas", "shift_terminal", "stochastic_sampling"),
)


def read_flow_schedule(folder: ModelFolder) -> FlowMatchEulerDiscreteScheduler:
    """The folder's levels; raises `ModelError` with the key of what is missing or not supported."""
    config = read_config(folder.path / "scheduler" / "scheduler_config.json")
    if (name := config.get("_class_name")) != SAMPLER:
        raise ModelError("model_unsupported", f"{config.path}: _class_name is {name!r}; expected {SAMPLER}")
    for key in UNSUPPORTED:
        if config.values.get(key):
            raise ModelError(
                "model_unsupported",
                f"{config.path}: {key} is {config.values[key]!r}; expected levels with a fixed shift",
            )
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=config.count("num_train_timesteps"), shift=positive(config, "shift")
    )


def positive(config: Config, key: str) -> float:
    """The value of a key that is a number above 0."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ModelError("model_invalid", f"{config.path}: {key} is {value!r}; expected a number above 0")
    return float(value)
