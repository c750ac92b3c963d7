"""The object store, and what of it lies on workers' disks."""

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from alignment_core.spec.places import UNPACKED_DISK_BYTES
from service.settings.base import Group


class Objects(Group):
    """The object store, and what of it lies on workers' disks."""

    object_store: Literal["directory", "s3"] = Field(default="directory", description="Where files are kept.")
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of an S3-compatible server; Amazon's when unset."
    )
    s3_public_endpoint_url: str | None = Field(
        default=None, description="Address under which clients reach the S3 server, when it is not the service's own."
    )
    s3_bucket: str | None = Field(
        default=None, description="Bucket, which must exist. Needed by the object store `s3`."
    )
    s3_region: str = Field(default="us-east-1", description="Region that requests are signed for.")
    s3_access_key_id: str | None = Field(default=None, description="Access key; boto3's own search when unset.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Secret of the access key.")
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Bucket in the path or in the host name; most self-hosted servers want `path`."
    )
    s3_checksums: Literal["when_required", "when_supported"] | None = Field(
        default=None,
        description="boto3's integrity checksums. `when_required` with a custom endpoint, since older servers store "
        "corrupt bytes under boto3's default; Amazon gets `when_supported`.",
    )
    transfer_part_bytes: int = Field(
        default=32 * 2**20, ge=5 * 2**20, description="Part size of multipart transfers (S3 refuses parts under 5 MiB)."
    )
    transfer_threads: int = Field(default=4, ge=1, le=64, description="Parts in flight in one transfer.")
    signed_url_seconds: int = Field(default=900, ge=1, le=604_800, description="How long a presigned download works.")
    share_latents: bool | None = Field(
        default=None,
        description="Whether encoded images and prompts of uploaded datasets are kept in the object store too, for other workers "
        "and later jobs, until the dataset is deleted. Where the store is S3, when left out.",
    )
    shards_disk_bytes: int | None = Field(
        default=None,
        ge=64 * 2**20,
        description="How much of a run's encoded images and prompts may lie on the worker's disk where they are shared; the rest is "
        "read from the object store again. No limit when left out.",
    )
    encoded_days: float | None = Field(
        default=90.0,
        gt=0,
        description="How long encoded images and prompts stay in the object store after the last job that used them; then they are "
        "removed, and encoded again when they are wanted. None keeps them until the dataset is deleted.",
    )
    dataset_disk_bytes: int | None = Field(
        default=32 * 2**30,
        ge=64 * 2**20,
        description="The largest file of a dataset that a worker fetches whole. A larger one is read from the object store by ranges, of "
        "which so many bytes may lie on the worker's disk, for each job or check. None fetches every file whole.",
    )
    unpacked_disk_bytes: int | None = Field(
        default=UNPACKED_DISK_BYTES,
        ge=64 * 2**20,
        description="How much of the images that random crops or flips have copied out of parquet or Arrow files may lie on the worker's "
        "disk, for each job; those that were not read for longest go, and are read from the dataset again. None sets no limit.",
    )

    @property
    def shares_latents(self) -> bool:
        return self.object_store == "s3" if self.share_latents is None else self.share_latents

    @property
    def resolved_s3_checksums(self) -> Literal["when_required", "when_supported"]:
        return self.s3_checksums or ("when_required" if self.s3_endpoint_url else "when_supported")

    @model_validator(mode="after")
    def _the_store_is_complete(self) -> Self:
        if self.object_store == "s3" and not self.s3_bucket:
            raise ValueError("ATTUNE_S3_BUCKET is needed when ATTUNE_OBJECT_STORE is s3")
        return self
