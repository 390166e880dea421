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
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import structlog
from botocore.exceptions import ClientError

from jobs.adapters import s3_removal
from jobs.adapters.s3_body import Body
from jobs.adapters.s3_bucket import FAILURES, Bucket, code_of, connect
from jobs.shelf import TOUCH_SECONDS, Shelved
from runner.errors import DiskFull, StoreUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20
_ASK_FIRST = 1 << 18  # a larger object is asked for before it is sent; a smaller one costs less than the question
PART = 16 << 20  # held in memory one at a time
_PARTS = 10_000  # as many as S3 takes
_ABANDONED = timedelta(days=1)  # far longer than the slowest output takes
_CONFLICTS = 5
_SENT_AT_ONCE = 16  # of which each waits for the store most of its time

log = structlog.get_logger(__name__)


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
        self._sent: dict[str, tuple[Future[None], float]] = {}  # by digest, with the time at which it was handed over
        self._pool: ThreadPoolExecutor | None = None
        self._room = threading.Semaphore(2 * _SENT_AT_ONCE)
        self._sweeping = threading.Lock()
        self._swept: datetime | None = None

    @property
    def client(self) -> Any:
        """Give the client, opened when it is first asked for."""
        with self._lock:
            if self._client is None:
                with self.bucket.translated():
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
            sent = [self._sent.pop(digest)[0] for digest in dict.fromkeys(digests) if digest in self._sent]
        wait(sent)
        for each in sent:
            each.result()

    def open(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open an object for reading from `offset`; raises KeyError. A read goes on after a connection that broke."""
        body = Body(self.client, self.bucket, self.place(digest), digest, offset)
        return cast(BinaryIO, io.BufferedReader(body, _BLOCK))

    def has(self, digest: str) -> bool:
        """Tell whether it is there."""
        place = self.place(digest)
        with self.bucket.translated():
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
            if known is not None and self._holds(*known):
                return
            self._pool = self._pool or ThreadPoolExecutor(_SENT_AT_ONCE, thread_name_prefix="s3")
        self._room.acquire()
        sent = self._pool.submit(self._put, body, digest, size)
        sent.add_done_callback(lambda _: self._room.release())
        with self._lock:
            self._sent[digest] = sent, time.time()

    def _holds(self, sent: Future[None], at: float) -> bool:
        """Tell whether what was sent need not be sent again; when nobody settled it, nothing may refer to it yet."""
        return not sent.done() or (abs(time.time() - at) < self._touch and sent.exception() is None)

    def _put_whole(self, file: IO[bytes], digest: str, size: int) -> _Written:
        file.seek(0)
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        words = {"Body": file, "ContentLength": size, "ChecksumSHA256": checksum, "IfNoneMatch": "*"}
        with self.bucket.translated():
            return _written(lambda: self.client.put_object(**self.place(digest), **words))

    def _put_parts(self, file: IO[bytes], digest: str, size: int) -> _Written:
        with self.bucket.translated():
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
        except FAILURES:
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
        with self.bucket.translated():
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
