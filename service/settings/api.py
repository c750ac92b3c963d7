"""What the API answers to, and the largest that it takes."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from service.settings.base import Group
from service.settings.lists import Names


class Api(Group):
    """What the API answers to, and the largest that it takes."""

    public_url: str | None = Field(
        default=None, description="Address clients see, when a proxy stands in front of the API."
    )
    api_keys_required: bool = Field(
        default=False,
        description="Refuse requests without a project's API key. Off, every request is the default project's.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, Names] = Field(
        default=(),
        description="Names, separated by commas, by which a server without keys may be called, beside localhost, its addresses, "
        "its host's name and `ATTUNE_PUBLIC_URL`'s; `*` for any, where nobody's browser reaches it.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, Names] = Field(
        default=(),
        description="Origins, separated by commas, whose pages may call the API from a browser, such as "
        "`https://app.example.org`; none when empty.",
    )
    session_idle_seconds: float = Field(
        default=3600.0, gt=0, description="A browser's session that nobody has used for so long is over."
    )
    session_seconds: float = Field(default=43_200.0, gt=0, description="A browser's session is over after so long.")
    sign_ins_per_minute: int = Field(
        default=10,
        ge=1,
        description="Most tries to open a session from one address, and with one key, that a process of the API looks at in a minute.",
    )
    longest_link_seconds: int = Field(
        default=3600, ge=1, le=3600, description="The longest time for which a signed link may be made."
    )
    max_upload_bytes: int = Field(default=10 * 2**30, ge=1, description="Largest dataset that may be uploaded.")
    max_evaluation_images: int = Field(
        default=1_000_000, ge=1, description="Most images of an evaluation: contenders times prompts times seeds."
    )
    max_candidate_images: int = Field(
        default=20_000, ge=1, description="Most images of candidates: contenders times prompts times seeds."
    )
    playground: bool | None = Field(
        default=None,
        description="Whether `POST /v1/playground`, and the page of that name, draw at once, before all jobs; left out, where no keys are required.",
    )
    playground_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="An attempt at what the playground draws fails after so many seconds."
    )
    max_list_limit: int = Field(default=100, ge=1, le=1000, description="Most rows one page of a list holds.")

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [host for host in hosts if host != "*" and any(letter in host for letter in "/:*@ ")]:
            raise ValueError(f"expected host names without scheme, port, path or wildcard, not {bad[0]!r}")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_whole(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, separator, rest = origin.partition("://")
            if not separator or scheme not in ("http", "https") or not rest or any(letter in rest for letter in "/*@ "):
                raise ValueError(f"expected origins such as https://app.example.org, not {origin!r}")
        return origins

    @property
    def session_idle(self) -> timedelta:
        return timedelta(seconds=self.session_idle_seconds)
