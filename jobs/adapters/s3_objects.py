"""The content-addressed object store on S3, or on a store that speaks it. Nothing is ever overwritten.

The keys are those of the local store (`ab/ab12…` below the prefix), so one can be copied into the other.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, cast

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from jobs.adapters import s3_removal
from jobs.shelf import TOUCH_SECONDS, Shelved
from runner.errors import DiskFull, StoreUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20
_ASK_FIRST = 1 << 18  # a larger object is asked for before it is sent; a smaller one costs less than the question
PART = 16 << 20  # held in memory one at a time
_PARTS = 10_000  # as many as S3 takes
_ABANDONED = timedelta(days=1)  # far longer than the slowest output takes
_READ_TRIES = 4
_CONFLICTS = 5
_SENT_AT_ONCE = 16  # of which each waits for the store most of its time
_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled"}
# A body that breaks off comes as urllib3's error, or as an OSError of the socket.
_FAILURES = (ClientError, BotoCoreError, HTTPError, OSError)

log = structlog.get_logger(__name__)


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


class _Written(Enum):
    """What became of a write: done, something is there already (which is as good), somebody else is at it."""

    YES = "yes"
    THERE = "there"
    CONFLICT = "conflict"


class S3Objects:
    """Objects as keys named by their SHA-256, written once, on condition that they are not there.

    `spool`: directory for what is on its way and larger than a part; default: the system's. `part`: bytes of a part.
    `touch`: one that was touched longer ago than so many seconds is touched when it is stored again.
    Every method raises StoreUnavailable when the store does not answer, or does not let us in.
    """

    def __init__(
        self, bucket: Bucket, *, spool: Path | None = None, part: int = PART, touch: float = TOUCH_SECONDS
    ) -> None:
        self.bucket, self._spool, self._part, self._touch = bucket, spool, part, touch
        self._lock = threading.Lock()
        self._client: Any = None
        self._sent: dict[str, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._room = threading.Semaphore(2 * _SENT_AT_ONCE)
        self._sweeping = threading.Lock()
        self._swept: datetime | None = None

    @property
    def client(self) -> Any:
        """Give the client, opened when it is first asked for."""
        with self._lock:
            if self._client is None:
                with self.translated():
                    self._client = connect(self.bucket)
        return self._client

    def place(self, digest: str) -> dict[str, str]:
        """Give bucket and key of an object; raises KeyError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise KeyError(digest)
        return {"Bucket": self.bucket.name, "Key": f"{self.bucket.prefix}{digest[:2]}/{digest}"}

    # ---- the port -------------------------------------------------------------------------------------------

    def put(self, data: BinaryIO, *, durable: bool = True, later: bool = False) -> tuple[str, int]:
        """Store a stream to its end and give (digest, size); on S3 everything is durable once it is there.

        `later`: small ones are sent beside each other, and are there after `settle`.
        """
        with self._spooled(data) as (file, digest, size):
            if later and size <= _ASK_FIRST:
                self._send_later(file, digest, size)
            elif size <= _ASK_FIRST or not self._touched(digest):
                self._put(file, digest, size)
        return digest, size

    def settle(self, digests: Sequence[str]) -> None:
        """Wait for what is on its way; raises what went wrong with it."""
        with self._lock:
            sent = [self._sent.pop(digest) for digest in dict.fromkeys(digests) if digest in self._sent]
        wait(sent)
        for each in sent:
            each.result()

    def open(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open an object for reading from `offset`; raises KeyError. A read goes on after a connection that broke."""
        return cast(BinaryIO, io.BufferedReader(_Body(self, digest, offset), _BLOCK))

    def has(self, digest: str) -> bool:
        """Tell whether it is there."""
        place = self.place(digest)
        with self.translated():
            try:
                self.client.head_object(**place)
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey", "NotFound"):
                    return False
                raise
        return True

    def owner(self, name: str, *, claim: bool) -> str:
        """Tell to which records the objects belong; `name` when they are nobody's."""
        return s3_removal.owner(self, name, claim=claim)

    def walk(self) -> Iterator[Shelved]:
        """Give all objects, by their digests."""
        return s3_removal.walk(self)

    def remove(self, digests: Sequence[str], *, untouched_since: float) -> list[str]:
        """Remove those that nobody has touched since a time; gives which those were."""
        return s3_removal.remove(self, digests, untouched_since=untouched_since)

    # ---- writing --------------------------------------------------------------------------------------------

    def _touched(self, digest: str) -> bool:
        return s3_removal.touch(self, digest, self._touch)

    @contextmanager
    def _spooled(self, data: BinaryIO) -> Iterator[tuple[IO[bytes], str, int]]:
        """Read a stream to its end, so that its key is known before its first byte is sent."""
        digest, size = hashlib.sha256(), 0
        if self._spool is not None:
            self._spool.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(self._part, dir=None if self._spool is None else str(self._spool)) as file:
            while block := data.read(_BLOCK):
                digest.update(block)
                size += len(block)
                try:
                    file.write(block)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise DiskFull(f"The host's disk is full: {error}") from error
                    raise
            yield file, digest.hexdigest(), size

    def _put(self, file: IO[bytes], digest: str, size: int) -> None:
        small = size <= self._part
        if not small:
            self._sweep()
        for _ in range(_CONFLICTS):
            written = self._put_whole(file, digest, size) if small else self._put_parts(file, digest, size)
            if written is _Written.YES:
                return
            if written is _Written.CONFLICT:
                time.sleep(0.2)  # somebody else writes or removes it at this moment
            if self._touched(digest):
                return
        raise StoreUnavailable(
            f"The object store {self.bucket} refuses {digest[:12]}… as being written, again and again."
        )

    def _send_later(self, file: IO[bytes], digest: str, size: int) -> None:
        """Send it in a thread; as many wait in memory as twice the threads take."""
        file.seek(0)
        body = io.BytesIO(file.read())
        with self._lock:
            known = self._sent.get(digest)
            if known is not None and not (known.done() and known.exception()):
                return
            self._pool = self._pool or ThreadPoolExecutor(_SENT_AT_ONCE, thread_name_prefix="s3")
        self._room.acquire()
        sent = self._pool.submit(self._put, body, digest, size)
        sent.add_done_callback(lambda _: self._room.release())
        with self._lock:
            self._sent[digest] = sent

    def _put_whole(self, file: IO[bytes], digest: str, size: int) -> _Written:
        file.seek(0)
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        words = {"Body": file, "ContentLength": size, "ChecksumSHA256": checksum, "IfNoneMatch": "*"}
        with self.translated():
            return _written(lambda: self.client.put_object(**self.place(digest), **words))

    def _put_parts(self, file: IO[bytes], digest: str, size: int) -> _Written:
        with self.translated():
            return _written(lambda: self._send(file, self.place(digest), size))

    def _send(self, file: IO[bytes], place: dict[str, str], size: int) -> None:
        upload = self.client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")["UploadId"]
        words = place | {"UploadId": upload}
        try:
            parts = {"Parts": [self._send_part(words, *part) for part in self._parts(file, size)]}
            self.client.complete_multipart_upload(**words, MultipartUpload=parts, IfNoneMatch="*")
        except BaseException:
            self._abort(words)
            raise

    def _parts(self, file: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
        length = max(self._part, -(-size // _PARTS))
        file.seek(0)
        number = 0
        while body := file.read(length):
            number += 1
            yield number, body

    def _send_part(self, words: dict[str, str], number: int, body: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        answer = self.client.upload_part(**words, PartNumber=number, Body=body, ChecksumSHA256=checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _abort(self, words: dict[str, str]) -> bool:
        """Give the parts of an upload up; one that cannot be given up now is found again in a day."""
        try:
            self.client.abort_multipart_upload(**words)
        except _FAILURES:
            return False
        return True

    def _sweep(self) -> None:
        """Give up, once a day and process, the uploads that writers which were killed left behind."""
        with self._sweeping:
            now = datetime.now(UTC)
            if self._swept is None or now - self._swept > _ABANDONED:
                self._swept = now
                try:
                    self.abandon(now - _ABANDONED)
                except StoreUnavailable as error:  # its lack costs a little money, and no upload
                    log.warning("objects.not_swept", error=error.text)

    def abandon(self, before: datetime) -> int:
        """Give up the uploads below our prefix that began before a time; gives how many."""
        pages = self.client.get_paginator("list_multipart_uploads")
        given_up = 0
        with self.translated():
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.bucket.prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < before and self.is_ours(upload["Key"]):
                        place = {"Bucket": self.bucket.name, "Key": upload["Key"]}
                        given_up += self._abort(place | {"UploadId": upload["UploadId"]})
        return given_up

    def is_ours(self, key: str) -> bool:
        """Tell whether a key is that of an object of ours."""
        name = key.removeprefix(self.bucket.prefix)
        return _DIGEST.fullmatch(name[3:]) is not None and name[:3] == f"{name[3:5]}/"

    # ---- errors ---------------------------------------------------------------------------------------------

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise StoreUnavailable, in words that tell what to mend, for whatever the SDK raises."""
        try:
            yield
        except _FAILURES as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> NoReturn:
        """Raise StoreUnavailable for an error of the SDK."""
        code = code_of(error)
        if code == "NoSuchBucket":
            text = f"There is no bucket {self.bucket.name}: make it, or correct objects.url."
        elif code in _DENIED or isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            text = f"The object store {self.bucket} does not let us in: {error}. See credentials and bucket policy."
        else:
            text = f"The object store {self.bucket} does not answer: {error}"
        raise StoreUnavailable(" ".join(text.split())) from error


class _Body(io.RawIOBase):
    """An object being read: one request, and one more after each seek and each connection that broke.

    Bytes that are not those which were stored are told at the end of a whole read.
    """

    def __init__(self, objects: S3Objects, digest: str, offset: int) -> None:
        super().__init__()
        self._objects, self._digest, self._at = objects, digest, offset
        self._place = objects.place(digest)
        self._whole = hashlib.sha256() if offset == 0 else None
        self._body: Any = None
        with objects.translated():
            self._request()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            with self._objects.translated():
                offset += int(self._objects.client.head_object(**self._place)["ContentLength"])
        target = self._at + offset if whence == io.SEEK_CUR else offset
        if target != self._at:
            self._drop()
            self._at, self._whole = target, None
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        if self._whole is not None:
            self._whole.update(data)
            if not data and len(buffer) and self._whole.hexdigest() != self._digest:
                raise StoreUnavailable(f"The object {self._digest[:12]}… came damaged from the store.")
        return len(data)

    def _read(self, size: int) -> bytes:
        for left in reversed(range(_READ_TRIES)):
            try:
                if self._body is None:
                    self._request()
                data: bytes = self._body.read(size)
                return data
            except KeyError:
                raise StoreUnavailable(f"The object {self._digest[:12]}… was removed while it was read.") from None
            except _FAILURES as error:
                self._drop()
                if left == 0 or isinstance(error, ClientError):  # the client has asked again by itself
                    self._objects.refuse(error)
                time.sleep(0.2 * (_READ_TRIES - left))
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._drop()
        super().close()

    def _request(self) -> None:
        ranged = {"Range": f"bytes={self._at}-"} if self._at else {}
        try:
            self._body = self._objects.client.get_object(**self._place, **ranged)["Body"]
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404"):
                raise KeyError(self._digest) from None
            if code_of(error) not in ("InvalidRange", "416"):
                raise
            self._body = io.BytesIO()  # it begins behind the object's end

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def code_of(error: BaseException | None) -> str:
    """Give the code that the store answered with; empty for what is no answer of it."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _written(write: Callable[[], object]) -> _Written:
    """Write on condition that nothing is there."""
    try:
        write()
    except ClientError as error:
        if code_of(error) in ("ConditionalRequestConflict", "OperationAborted", "409"):
            return _Written.CONFLICT
        if code_of(error) not in ("PreconditionFailed", "412"):
            raise
        return _Written.THERE
    return _Written.YES
