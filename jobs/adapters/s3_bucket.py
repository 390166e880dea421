"""Where objects are on S3, or on a store that speaks it: the bucket, its client, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from runner.errors import StoreUnavailable

_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled"}
# A body that breaks off comes as urllib3's error, or as an OSError of the socket.
FAILURES = (ClientError, BotoCoreError, HTTPError, OSError)


@dataclass(frozen=True)
class Bucket:
    """Where the objects are. `prefix` is empty or ends with a slash; `endpoint_url`: of another store than AWS's."""

    name: str
    prefix: str = ""
    region: str | None = None
    endpoint_url: str | None = None

    def __str__(self) -> str:
        at = f" at {self.endpoint_url}" if self.endpoint_url else ""
        return f"s3://{self.name}/{self.prefix}".rstrip("/") + at

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise StoreUnavailable, in words that tell what to mend, for whatever the SDK raises."""
        try:
            yield
        except FAILURES as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise StoreUnavailable for an error of the SDK."""
        code = code_of(error)
        if code == "NoSuchBucket":
            text = f"There is no bucket {self.name}: make it, or correct objects.url."
        elif code in _DENIED or isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            text = f"The object store {self} does not let us in: {error}. See credentials and bucket policy."
        else:
            text = f"The object store {self} does not answer: {error}"
        raise StoreUnavailable(" ".join(text.split())) from error


def connect(bucket: Bucket, *, tries: int = 4) -> Any:
    """Open a client with the credentials that every AWS client finds; it is safe to use from many threads."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=3,
        read_timeout=20,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Other stores answer at a host's own name only.
        s3={"addressing_style": "path" if bucket.endpoint_url else "auto"},
        # Ours is the SHA-256 of the content, sent and looked at here; not every store knows the CRCs of boto3.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3", region_name=bucket.region, endpoint_url=bucket.endpoint_url, config=config
    )


def code_of(error: BaseException | None) -> str:
    """Give the code that the store answered with; empty for what is no answer of it."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
