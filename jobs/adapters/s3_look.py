"""Look at a bucket for `seatrial doctor`: write, read, and take away what was written."""

from __future__ import annotations

import secrets
import time
from typing import Any

from jobs.adapters.s3_bucket import code_of
from jobs.adapters.s3_objects import S3Objects
from jobs.doctor_objects import ObjectsFacts
from runner.errors import StoreUnavailable

CONTENT = b"seatrial doctor"


def look(objects: S3Objects) -> ObjectsFacts:
    """Try all that a run asks of the store; never raises for what it answers."""
    bucket = objects.bucket
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}doctor/{secrets.token_hex(8)}"}
    began = time.monotonic()
    conditional = same = False
    error = ""
    try:
        objects.has("0" * 64)
        _write(objects, place)
        seconds = time.monotonic() - began
        conditional = not _write(objects, place)
        with objects.bucket.translated():
            same = objects.client.get_object(**place, Range="bytes=9-")["Body"].read() == CONTENT[9:]
    except StoreUnavailable as refused:
        seconds, error = time.monotonic() - began, refused.text
    return ObjectsFacts(
        str(bucket),
        seconds,
        error,
        conditional=conditional,
        same=same,
        lists=bool(error) or _may(objects, "list_multipart_uploads", Bucket=bucket.name, Prefix=bucket.prefix),
        deletes=bool(error) or _may(objects, "delete_object", **place),
    )


def _write(objects: S3Objects, place: dict[str, str]) -> bool:
    """Write on condition that nothing is there; tell whether it was written."""
    try:
        with objects.bucket.translated():
            objects.client.put_object(**place, Body=CONTENT, IfNoneMatch="*")
    except StoreUnavailable as error:
        if code_of(error.__cause__) != "PreconditionFailed":
            raise
        return False
    return True


def _may(objects: S3Objects, action: str, **words: Any) -> bool:
    try:
        with objects.bucket.translated():
            getattr(objects.client, action)(**words)
    except StoreUnavailable:
        return False
    return True
