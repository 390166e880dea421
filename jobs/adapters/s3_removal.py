"""Part with objects on S3, which cannot remove on condition that nobody touched an object meanwhile.

Whoever removes announces it first: an object `removing/…` below the prefix, which names what may go, until it is gone.
Whoever finds an old object in the place of what he stores touches it, looks for announcements *afterwards*, waits for those
that name it, and then looks whether it is there still. Whatever their order, he sees either the announcement or its outcome.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from jobs.shelf import OWNER, Shelved
from runner.errors import StoreUnavailable

if TYPE_CHECKING:
    from jobs.adapters.s3_objects import S3Objects

AT_ONCE = 200  # named by one announcement: some seconds of work
WORK_SECONDS = 120.0  # after this nothing more of an announcement is removed
# An announcement that is older was left by a sweeper that was killed: its last request ended long ago.
NOTICE_SECONDS = 300.0
_THREADS = 16
_COPY = TransferConfig(multipart_threshold=4 << 30, multipart_chunksize=512 << 20)  # a single copy takes 5 GiB
_ABSENT = ("404", "NoSuchKey", "NotFound")


def owner(objects: S3Objects, name: str, *, claim: bool) -> str:
    """Tell to which records the objects belong; `name` when they are nobody's."""
    place = {"Bucket": objects.bucket.name, "Key": f"{objects.bucket.prefix}{OWNER}"}
    with objects.bucket.translated():
        try:
            if claim:
                objects.client.put_object(**place, Body=f"{name}\n".encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("PreconditionFailed", "412"):
                raise
        try:
            return str(objects.client.get_object(**place)["Body"].read().decode("utf-8", "replace")).strip()
        except ClientError as error:
            if claim or error.response.get("Error", {}).get("Code") not in _ABSENT:
                raise
            return name


def walk(objects: S3Objects) -> Iterator[Shelved]:
    """Give all objects below the prefix, by their digests, a thousand a request."""
    pages = objects.client.get_paginator("list_objects_v2")
    with objects.bucket.translated():
        for page in pages.paginate(Bucket=objects.bucket.name, Prefix=objects.bucket.prefix):
            for item in page.get("Contents", ()):
                if objects.is_ours(item["Key"]):
                    touched = item["LastModified"].timestamp()
                    yield Shelved(item["Key"].rpartition("/")[2], int(item["Size"]), touched)


def remove(objects: S3Objects, digests: Sequence[str], *, untouched_since: float) -> list[str]:
    """Remove those that were last touched before a time."""
    gone: list[str] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-remove") as pool:
        for start in range(0, len(digests), AT_ONCE):
            some = list(digests[start : start + AT_ONCE])
            places = [objects.place(digest) for digest in some]
            with objects.bucket.translated():
                notice = _announce(objects, some)
                until = time.monotonic() + WORK_SECONDS
                # What raises leaves the announcement, which is out of date in minutes: a request may be under way still.
                one = partial(_remove, objects.client, untouched_since, until)
                removed = list(pool.map(one, places))
                objects.client.delete_object(**notice)
            gone += [digest for digest, was in zip(some, removed, strict=True) if was]
    return gone


def _remove(client: Any, untouched_since: float, until: float, place: dict[str, str]) -> bool:
    found = _look(client, place)
    if found is None or found >= untouched_since or time.monotonic() > until:
        return False
    client.delete_object(**place)
    return True


def _look(client: Any, place: dict[str, str]) -> float | None:
    """Tell when an object was touched last, to the second; None when there is none."""
    try:
        found: datetime = client.head_object(**place)["LastModified"]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _ABSENT:
            return None
        raise
    return found.timestamp()


def _announce(objects: S3Objects, digests: Sequence[str]) -> dict[str, str]:
    """Say what may go from now on; gives the place of the announcement."""
    for left, at in _announcements(objects):
        if _age(at) > NOTICE_SECONDS:
            objects.client.delete_object(**left)
    key = f"{objects.bucket.prefix}removing/{secrets.token_hex(8)}"
    notice = {"Bucket": objects.bucket.name, "Key": key}
    objects.client.put_object(**notice, Body=json.dumps(list(digests)).encode())
    return notice


def _announcements(objects: S3Objects) -> Iterator[tuple[dict[str, str], datetime]]:
    pages = objects.client.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=objects.bucket.name, Prefix=f"{objects.bucket.prefix}removing/"):
        for item in page.get("Contents", ()):
            yield {"Bucket": objects.bucket.name, "Key": item["Key"]}, item["LastModified"]


def touch(objects: S3Objects, digest: str, older_than: float) -> bool:
    """Touch an object that was touched longer ago than so many seconds; False when it is not there, or goes now."""
    place = objects.place(digest)
    with objects.bucket.translated():
        at = _look(objects.client, place)
        if at is None:
            return False
        if abs(time.time() - at) < older_than:
            return True
        try:
            # A copy onto itself: the only way to make it young again without sending it.
            words = {"MetadataDirective": "REPLACE"}
            objects.client.copy(place, place["Bucket"], place["Key"], ExtraArgs=words, Config=_COPY)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                return False
            raise
        _await_announced(objects, digest)
        return _look(objects.client, place) is not None


def _await_announced(objects: S3Objects, digest: str) -> None:
    """Wait while somebody may be removing it."""
    deadline = time.monotonic() + NOTICE_SECONDS + 60.0
    while any(_names(objects, notice, digest) for notice, at in _announcements(objects) if _age(at) <= NOTICE_SECONDS):
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"The object {digest[:12]}… is being removed all the time by other sweepers.")
        time.sleep(0.5)


def _names(objects: S3Objects, notice: dict[str, str], digest: str) -> bool:
    try:
        return digest in json.loads(objects.client.get_object(**notice)["Body"].read())
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _ABSENT:
            return False
        raise


def _age(at: datetime) -> float:
    return (datetime.now(UTC) - at).total_seconds()
