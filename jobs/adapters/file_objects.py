"""The content-addressed object store in a local directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import BinaryIO

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20


class FileObjects:
    """Objects as files named by their SHA-256, two levels deep; written beside and renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise KeyError(digest)
        return self._root / digest[:2] / digest

    def put(self, data: BinaryIO, *, durable: bool = True) -> tuple[str, int]:
        """Store a stream to its end and give (digest, size). `durable`: survive a power cut, not only a kill."""
        incoming = self._root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        temporary = incoming / secrets.token_hex(16)
        digest, size = hashlib.sha256(), 0
        try:
            with temporary.open("xb") as file:
                while block := data.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    file.write(block)
                file.flush()
                path = self._path(digest.hexdigest())
                if path.exists():
                    return digest.hexdigest(), size
                if durable:
                    os.fdatasync(file.fileno())
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        return digest.hexdigest(), size

    def open(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open an object for reading; raises KeyError."""
        try:
            file = self._path(digest).open("rb")
        except FileNotFoundError:
            raise KeyError(digest) from None
        file.seek(offset)
        return file

    def has(self, digest: str) -> bool:
        """Tell whether it is there."""
        return self._path(digest).exists()
