"""The content-addressed object store in a local directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from jobs.shelf import OWNER, TOUCH_SECONDS, Shelved
from runner.passing import passing_file

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20
_WRITTEN_BACK_SECONDS = 60.0  # Linux writes dirty pages back after 30 s (vm.dirty_expire_centisecs) and a little
_SYNCS_AT_ONCE = 16
INCOMING = "incoming"  # what is written beside


class FileObjects:
    """Objects as files named by their SHA-256, two levels deep; written beside and renamed into place.

    `touch`: one that was touched longer ago than so many seconds is touched when it is stored again.
    """

    def __init__(self, root: Path, *, touch: float = TOUCH_SECONDS) -> None:
        self._root, self._touch = root, touch

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise KeyError(digest)
        return self._root / digest[:2] / digest

    def put(self, data: BinaryIO, *, durable: bool = True, later: bool = False) -> tuple[str, int]:
        """Store a stream to its end and give (digest, size). `durable`: survive a power cut, not only a kill.

        `later` gains nothing here: what takes its time is making it durable.
        """
        digest, size = hashlib.sha256(), 0
        with passing_file(self._root / INCOMING) as (temporary, file):
            while block := data.read(_BLOCK):
                digest.update(block)
                size += len(block)
                file.write(block)
            file.flush()
            path = self._path(digest.hexdigest())
            if self._is_here(path, size):
                if durable:
                    self.settle([digest.hexdigest()])
                return digest.hexdigest(), size
            if durable:
                os.fdatasync(file.fileno())
            path.parent.mkdir(exist_ok=True)
            with _held(path, fcntl.LOCK_SH):  # one that a power cut left short may be about to be removed
                temporary.replace(path)
        return digest.hexdigest(), size

    def _is_here(self, path: Path, size: int) -> bool:
        """Tell whether an object is there, and touch it; a power cut can leave one that was not settled shorter."""
        with _held(path, fcntl.LOCK_SH) as about:
            if about is None or about.st_size != size:
                return False
            if abs(time.time() - about.st_mtime) >= self._touch:
                os.utime(path)
            return True

    def settle(self, digests: Sequence[str]) -> None:
        """Make objects survive a power cut; those that have stood for a minute have been written back already.

        File systems group what many threads sync at once: 300 files took 0.35 s so, and 1.2 s one by one.
        """
        now = time.time()
        paths = [self._path(digest) for digest in dict.fromkeys(digests)]
        fresh = [path for path in paths if abs(now - path.stat().st_mtime) < _WRITTEN_BACK_SECONDS]
        if len(fresh) <= 1:
            for path in fresh:
                _sync(path)
            return
        with ThreadPoolExecutor(min(_SYNCS_AT_ONCE, len(fresh)), thread_name_prefix="sync") as pool:
            for _ in pool.map(_sync, fresh):
                pass

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

    # ---- what goes ------------------------------------------------------------------------------------------

    def owner(self, name: str, *, claim: bool) -> str:
        """Tell to which records the objects belong; `name` when they are nobody's."""
        path = self._root / OWNER
        if not path.exists():
            if not claim:
                return name
            self._root.mkdir(parents=True, exist_ok=True)
            mine = self._root / f"{OWNER}-{name}"
            mine.write_text(f"{name}\n", "utf-8")
            _sync(mine)
            with contextlib.suppress(FileExistsError):  # whole, or not at all
                os.link(mine, path)
            mine.unlink(missing_ok=True)
        return path.read_text("utf-8").strip()

    def walk(self) -> Iterator[Shelved]:
        """Give all objects, by their digests."""
        for directory in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(directory.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    about = path.stat()
                    if _DIGEST.fullmatch(path.name):
                        yield Shelved(path.name, about.st_size, about.st_mtime)

    def remove(self, digests: Sequence[str], *, untouched_since: float) -> list[str]:
        """Remove those that nobody has touched since a time; gives which those were."""
        gone = []
        for digest in digests:
            path = self._path(digest)
            # Who stores the same bytes at this moment holds the file, and it stays; or he comes later, and sees that it
            # is gone.
            with _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as about:
                if about is not None and about.st_mtime < untouched_since and os.path.samestat(about, path.stat()):
                    path.unlink()
                    gone.append(digest)
        return gone


@contextlib.contextmanager
def _held(path: Path, kind: int) -> Iterator[os.stat_result | None]:
    """Hold an object, so that nobody else removes it; gives what it is.

    None when there is none (any more), or when another one holds it that is not waited for (`LOCK_NB`).
    """
    try:
        file = os.open(path, (os.O_RDWR if kind & fcntl.LOCK_EX else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    about = None
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, kind)
            about = os.fstat(file)
        yield about if about is not None and about.st_nlink else None
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(file)
    finally:
        os.close(file)
