"""Archives of a run's outputs, written while they are sent: never whole in memory or on disk."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO, BinaryIO, cast

from runner.model import Output

PIECE = 1 << 18

BACKSLASH = "%5C"


@dataclass(frozen=True)
class Entry:
    """A file of an archive: its path inside, its size in bytes, and how to open it."""

    path: str
    size: int
    open: Callable[[], BinaryIO]


class _Sink(io.RawIOBase):
    """A file that is only written to; what was written is taken out again in between."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._at

    def write(self, data: object) -> int:
        piece = bytes(cast("bytes", data))
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def safe_path(*parts: str) -> str:
    """Join the parts of a path inside an archive; raises ValueError for one that would leave it.

    A backslash, which parts directories on Windows, becomes `%5C`: names that are not UTF-8 have some.
    """
    path = PurePosixPath("/".join(part for part in parts if part))
    if any(part.startswith("/") for part in parts) or ".." in path.parts or "\x00" in str(path):
        raise ValueError(f"not a path inside an archive: {path}")
    return str(path).replace("\\", BACKSLASH)


def apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Number the paths that became alike because a backslash cannot stand in them."""
    seen: set[str] = set()
    for entry in entries:
        path, number = entry.path, 1
        while BACKSLASH in entry.path and path in seen:
            number += 1
            named = PurePosixPath(entry.path)
            path = str(named.with_name(f"{named.stem} ({number}){named.suffix}"))
        if BACKSLASH in entry.path:
            seen.add(path)
        yield replace(entry, path=path)


def output_path(leg: str, unit: str, name: str) -> str:
    """Give the path of a unit's output: the unit's name with the extension of the file that it wrote."""
    return safe_path(leg, unit + "".join(PurePosixPath(name).suffixes[-1:]))


def tree_entries(prefix: str, manifest: BinaryIO, open_object: Callable[[str], BinaryIO]) -> Iterator[Entry]:
    """Give the files of an output that is a tree; `manifest` is JSON, path → {digest, size}."""
    with manifest:
        files = json.load(manifest)
    for path, found in sorted(files.items()):
        digest = found["digest"]
        yield Entry(safe_path(prefix, path), found["size"], lambda digest=digest: open_object(digest))  # type: ignore[misc]


def tree_find(manifest: BinaryIO, path: str) -> Iterator[tuple[str, int]]:
    """Give digest and size of the file of that path, when the manifest has one."""
    with manifest:
        files = json.load(manifest)
    if path in files:
        yield files[path]["digest"], files[path]["size"]


def entries_of(leg: str, unit: str, output: Output, open_object: Callable[[str], BinaryIO]) -> Iterator[Entry]:
    """Give the archive's entries of one unit."""
    if output.tree:
        yield from tree_entries(safe_path(leg, unit), open_object(output.digest), open_object)
    else:
        yield Entry(output_path(leg, unit, output.name), output.size, lambda: open_object(output.digest))


def zipped(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Write a zip file piece by piece."""
    sink = _Sink()
    at = datetime.now(UTC).timetuple()[:6]
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry in apart(entries):
            info = zipfile.ZipInfo(entry.path, date_time=at)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.file_size = entry.size
            with entry.open() as source, archive.open(info, "w", force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    if taken := sink.take():
                        yield taken
            yield sink.take()
    yield sink.take()


def tarred(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Write a tar file piece by piece."""
    at = int(datetime.now(UTC).timestamp())
    for entry in apart(entries):
        info = tarfile.TarInfo(entry.path)
        info.size, info.mtime, info.mode = entry.size, at, 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = entry.size
        with entry.open() as source:
            while left and (piece := source.read(min(PIECE, left))):
                left -= len(piece)
                yield piece
        if left:
            raise OSError(f"{entry.path}: {left} bytes are missing in the object store")
        yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
