"""Webhooks: who may have them, and how patient they are."""

from pydantic import Field, SecretStr, field_validator

from service.settings.base import Group
from service.settings.lists import parts_of

SHORTEST_WEBHOOKS_KEY = 32  # characters


class Webhooks(Group):
    """Webhooks: who may have them, and how patient they are."""

    webhooks_key: SecretStr | None = Field(
        default=None,
        description="Encrypts the secrets of webhooks in the database, for API and workers alike: text of 32 characters or more. Of several, "
        "separated by commas, the first encrypts and all decrypt. On SQLite a file in data_dir when left out; elsewhere there are no webhooks then.",
    )
    webhooks_allow_private: bool = Field(
        default=False,
        description="Let webhooks have private addresses of the workers' network, and there http as well as https.",
    )
    webhooks_per_project: int = Field(default=20, ge=1, description="Most webhooks of a project.")
    webhooks_timeout_seconds: float = Field(
        default=15.0, gt=0, le=60, description="How long a webhook has to answer, connecting included."
    )
    webhooks_poll_seconds: float = Field(
        default=1.0, gt=0, description="How often a worker looks for webhooks to send."
    )
    webhooks_disable_after_days: float = Field(
        default=5.0, gt=0, description="A webhook that has only failed for so long, ten times at least, is disabled."
    )
    webhooks_log_days: float = Field(
        default=30.0, gt=0, description="How long deliveries of webhooks are kept, sent or not."
    )

    @field_validator("webhooks_key")
    @classmethod
    def _keys_are_long(cls, text: SecretStr | None) -> SecretStr | None:
        keys = [] if text is None else parts_of(text)
        if any(len(key) < SHORTEST_WEBHOOKS_KEY for key in keys):
            raise ValueError(
                f"expected keys of {SHORTEST_WEBHOOKS_KEY} characters or more, such as `openssl rand -hex 32` prints"
            )
        return text if keys else None
