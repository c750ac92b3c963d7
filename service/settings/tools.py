"""Other people's tools: trackers, the Hub, servers of rewards."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from alignment_core.spec.trackers import TrackerName
from service.settings.base import Group
from service.settings.lists import Names, Words


class Tools(Group):
    """Other people's tools: trackers, the Hub, servers of rewards."""

    trackers: Annotated[tuple[TrackerName, ...], NoDecode, Words] = Field(
        default=(),
        description="Tools that hear of every job while it runs, `tensorboard`, `wandb` and `mlflow`, separated by commas. Workers need "
        "the extra of the same name; what lets them in are the variables of the tool's own client, of workers alone (docs/trackers.md).",
    )
    hub_namespaces: Annotated[tuple[str, ...], NoDecode, Words] = Field(
        default=(),
        description="Users and organizations of the Hugging Face Hub, separated by commas, whose repositories checkpoints may be pushed to; "
        "none when empty. The Hub is that of the workers' `HF_ENDPOINT`.",
    )
    hub_token: SecretStr | None = Field(
        default=None, description="Token that may write to these namespaces; workers need it, and nobody else."
    )
    max_push_seconds: float = Field(
        default=3600.0, gt=0, description="A push to the Hub that takes longer is given up; it is killed."
    )
    remote_reward_hosts: Annotated[tuple[str, ...], NoDecode, Names] = Field(
        default=(),
        description="Hosts, separated by commas, that the rewards of specs may be asked for over HTTPS; none when empty. "
        "They are trusted with images and prompts, and may have private addresses.",
    )
    remote_reward_secret: SecretStr | None = Field(
        default=None, description="Signs the requests to remote rewards; workers need it, and the reward servers."
    )

    @field_validator("remote_reward_hosts")
    @classmethod
    def _hosts_are_bare(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [host for host in hosts if any(letter in host for letter in "/*@[] ")]:
            raise ValueError(f"expected host names without scheme, path or wildcard, not {bad[0]!r}")
        return hosts
