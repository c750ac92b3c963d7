"""S3Store: objects in a bucket of any S3-compatible server, through boto3."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import (
    ConnectionError as S3ConnectionError,
)

from service.settings import Settings
from service.store.objects import CHUNK_BYTES, ObjectInfo, ObjectNotFound, check_key
from service.store.unavailable import ObjectsUnavailable, reason_of_s3

_NO_OBJECT = {"404", "NoSuchKey", "NotFound"}
_NO_ANSWER = (S3ConnectionError, HTTPClientError, IncompleteReadError, RetriesExceededError)


class S3Store:
    """Objects of one bucket. Parts of 32 MiB, four at once, moved 1 GB in under 120 MB of memory."""

    def __init__(self, settings: Settings) -> None:
        assert settings.s3_bucket is not None
        self._client = _client(settings, settings.s3_endpoint_url)
        # a link is signed for one host, so those for clients need a client of their own
        self._linker = _client(settings, settings.s3_public_endpoint_url or settings.s3_endpoint_url)
        self._bucket = settings.s3_bucket
        self._transfer = TransferConfig(
            multipart_threshold=settings.transfer_part_bytes,
            multipart_chunksize=settings.transfer_part_bytes,
            max_concurrency=settings.transfer_threads,
            preferred_transfer_client="classic",  # the CRT client fails on endpoints with a port
        )

    def put_file(self, key: str, path: Path) -> None:
        with _translated_errors(key):
            self._client.upload_file(str(path), self._bucket, check_key(key), Config=self._transfer)

    def put_bytes(self, key: str, content: bytes) -> None:
        with _translated_errors(key):
            self._client.put_object(Bucket=self._bucket, Key=check_key(key), Body=content)

    def get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._key_or_bucket(key), _translated_errors(key):  # boto3 downloads to a temporary name and renames
            self._client.download_file(self._bucket, check_key(key), str(path), Config=self._transfer)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        wanted = {}
        if (start, end) != (0, None):
            size_bytes = self.head(key).size_bytes
            last = (size_bytes if end is None else min(end, size_bytes)) - 1
            if start > last:  # S3 answers an empty range with an error
                return iter(())
            wanted = {"Range": f"bytes={start}-{last}"}
        with _translated_errors(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=check_key(key), **wanted)
        return _chunks(key, answer["Body"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix))
        while True:
            with _translated_errors(prefix):
                page = next(pages, None)
            if page is None:
                return
            for item in page.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item["LastModified"].astimezone(UTC))

    def head(self, key: str) -> ObjectInfo:
        with self._key_or_bucket(key), _translated_errors(key):
            answer = self._client.head_object(Bucket=self._bucket, Key=check_key(key))
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"].astimezone(UTC))

    def delete(self, key: str) -> None:
        try:
            with _translated_errors(key):
                self._client.delete_object(Bucket=self._bucket, Key=check_key(key))
        except ObjectNotFound:
            return

    def url(self, key: str, expires_seconds: int, filename: str) -> str | None:
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return self._linker.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": check_key(key), "ResponseContentDisposition": disposition},
            ExpiresIn=expires_seconds,
        )

    @contextmanager
    def _key_or_bucket(self, key: str) -> Generator[None]:
        """Ask again after a HEAD's 404, which has no body to say what is missing: the key or the whole bucket."""
        try:
            yield
        except ObjectNotFound:
            with _translated_errors(key):
                self._client.get_object(Bucket=self._bucket, Key=key)["Body"].close()
            raise


def _client(settings: Settings, endpoint_url: str | None) -> Any:
    secret = settings.s3_secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=None if secret is None else secret.get_secret_value(),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.s3_addressing_style},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            request_checksum_calculation=settings.resolved_s3_checksums,
            response_checksum_validation=settings.resolved_s3_checksums,
        ),
    )


def _chunks(key: str, body: Any) -> Iterator[bytes]:
    try:
        with _translated_errors(key):
            yield from body.iter_chunks(CHUNK_BYTES)
    finally:
        body.close()


@contextmanager
def _translated_errors(key: str) -> Generator[None]:
    """boto3's many errors as the two that callers tell apart."""
    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error) as error:
        answered = error.__context__ if isinstance(error, Boto3Error) else error  # a failed transfer wraps what it met
        if not isinstance(answered, ClientError):
            name = type(error).__name__
            reason = "unreachable" if isinstance(error, _NO_ANSWER) else reason_of_s3(name, 400)
            raise ObjectsUnavailable(f"{key}: {error}", reason) from error
        code = answered.response["Error"]["Code"]
        if code in _NO_OBJECT:
            raise ObjectNotFound(key) from error
        status = answered.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        raise ObjectsUnavailable(f"{key}: {error}", reason_of_s3(code, status)) from error
