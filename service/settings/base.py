"""What all groups of settings have in common."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Group(BaseSettings):
    """Some of the settings, those of one matter."""

    model_config = SettingsConfigDict(
        env_prefix="ATTUNE_",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # a refused value must not take the secrets beside it into a log
    )
