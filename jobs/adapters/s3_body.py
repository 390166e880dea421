"""An object on S3 being read."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from jobs.adapters.s3_bucket import FAILURES, Bucket, code_of
from runner.errors import StoreUnavailable

_READ_TRIES = 4


class Body(io.RawIOBase):
    """An object being read: one request, and one more after each seek and each connection that broke.

    Bytes that are not those which were stored are told at the end of a whole read.
    """

    def __init__(self, client: Any, bucket: Bucket, place: Mapping[str, str], digest: str, offset: int) -> None:
        super().__init__()
        self._client, self._bucket, self._place = client, bucket, place
        self._digest, self._at = digest, offset
        self._whole = hashlib.sha256() if offset == 0 else None
        self._body: Any = None
        with bucket.translated():
            self._request()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            with self._bucket.translated():
                offset += int(self._client.head_object(**self._place)["ContentLength"])
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
            except FAILURES as error:
                self._drop()
                if left == 0 or isinstance(error, ClientError):  # the client has asked again by itself
                    self._bucket.refuse(error)
                time.sleep(0.2 * (_READ_TRIES - left))
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._drop()
        super().close()

    def _request(self) -> None:
        ranged = {"Range": f"bytes={self._at}-"} if self._at else {}
        try:
            self._body = self._client.get_object(**self._place, **ranged)["Body"]
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
