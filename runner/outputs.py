"""Find, check and store the outputs of units."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from runner.errors import LimitExceeded, OutputRefused, StoreUnavailable
from runner.files import list_inside, open_inside, walk_inside
from runner.model import Output
from runner.ports import Objects

# A file that was written this short a time before it was read may be written again without a new time stamp: clocks of
# file systems tick every 1 to 10 ms.
_TICK_NS = 20_000_000


@dataclass(frozen=True)
class Stamp:
    """By what a file is known to be unchanged without reading it again. `racy`: it was too fresh for that."""

    inode: int
    size: int
    modified: int
    changed: int
    racy: bool

    @classmethod
    def of(cls, file: BinaryIO) -> Stamp:
        now = time.time_ns()
        status = os.fstat(file.fileno())
        racy = abs(now - status.st_ctime_ns) < _TICK_NS
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, racy)

    def same(self, other: Stamp) -> bool:
        """Tell whether nothing was written between the two for certain."""
        return not self.racy and replace(self, racy=False) == replace(other, racy=False)


@dataclass(frozen=True)
class Taken:
    """An output that was stored at its mark: the path below the output directory, its stamp, what was stored."""

    path: str
    stamp: Stamp
    output: Output


class Outputs:
    """The output directory of one execution. What is taken is durable after `settle`."""

    def __init__(self, root: Path, objects: Objects, units: tuple[str, ...], *, file_limit: int) -> None:
        self._root = root
        self._objects = objects
        self._file_limit = file_limit
        self._longer = _longer_names(units)
        self._parents = {unit[:end] for unit in units for end in _slashes(unit)}
        self._listed: dict[str, list[str]] = {}
        self._by_first: dict[str, dict[str, list[str]]] = {}
        self._unsettled: list[str] = []
        self.check: Callable[[], None] = lambda: None  # called again and again while a large one is read; may raise
        self.taken: dict[str, Taken] = {}

    def take(self, unit: str) -> Output:
        """Store the output of a finished unit.

        Raises FileNotFoundError when it has none, OutputRefused or LimitExceeded when it cannot be one.
        """
        path = self._find(unit)
        with open_inside(self._root, path) as file:
            before = Stamp.of(file)
            self._check_size(path, before.size)
            digest, size = self._store(file)
        output = Output(path.rsplit("/", 1)[-1], digest, size)
        self.taken[unit] = Taken(path, before, output)
        return output

    def settle(self) -> None:
        """Make all that was taken survive a power cut."""
        with _in_store():
            self._objects.settle(self._unsettled)
        self._unsettled = []

    def changed(self) -> list[str]:
        """Give the units whose output is no longer what was stored at their mark."""
        return [unit for unit, taken in self.taken.items() if self._differs(taken)]

    def _differs(self, taken: Taken) -> bool:
        try:
            with open_inside(self._root, taken.path) as file:
                if taken.stamp.same(Stamp.of(file)):
                    return False
                return _digest(file, self.check) != taken.output.digest
        except (FileNotFoundError, OutputRefused):
            return True

    def take_all(self) -> Output:
        """Store the whole directory as one output, durably: a manifest of its files."""
        manifest: dict[str, dict[str, object]] = {}
        total = 0
        for path in walk_inside(self._root):
            with open_inside(self._root, path) as file:
                self._check_size(path, os.fstat(file.fileno()).st_size)
                digest, size = self._store(file)
            name = os.fsencode(path).decode("utf-8", "backslashreplace")
            if name in manifest:
                raise OutputRefused(f"Two outputs are called {name} once their names are written as UTF-8.")
            manifest[name] = {"digest": digest, "size": size}
            total += size
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()
        digest, _ = self._store(io.BytesIO(text))
        self.settle()
        return Output("output", digest, total, tree=True)

    def _check_size(self, path: str, size: int) -> None:
        if size > self._file_limit:
            raise LimitExceeded(f"The output {path} has {size:,} bytes; limits.file is {self._file_limit:,}.")

    def _store(self, file: BinaryIO) -> tuple[str, int]:
        with _in_store():
            digest, size = self._objects.put(cast(BinaryIO, _Checked(file, self.check)), durable=False, later=True)
        self._unsettled.append(digest)
        return digest, size

    def restore(self, output: Output, owner: tuple[int, int]) -> None:
        """Write the files of a manifest back, as the script left them."""
        with self._objects.open(output.digest) as file:
            manifest: dict[str, dict[str, Any]] = json.load(file)
        for name, entry in manifest.items():
            if ".." in name.split("/") or name.startswith("/"):
                raise OutputRefused(f"{name} leads out of its directory.")
            path = self._root / name
            for directory in [*reversed(path.relative_to(self._root).parents)][1:]:
                (self._root / directory).mkdir(exist_ok=True)
                _give(self._root / directory, owner)
            with self._objects.open(entry["digest"]) as stored, path.open("xb") as file:
                shutil.copyfileobj(stored, file)
            _give(path, owner)

    def _find(self, unit: str) -> str:
        directory, _, name = unit.rpartition("/")
        found = self._candidates(directory, name, fresh=False) or self._candidates(directory, name, fresh=True)
        if not found:
            raise FileNotFoundError(unit)
        if len(found) > 1:
            raise OutputRefused(f"There are several outputs of {unit}: {', '.join(found[:4])}. Write one.")
        return f"{directory}/{found[0]}" if directory else found[0]

    def _candidates(self, directory: str, name: str, *, fresh: bool) -> list[str]:
        if fresh or directory not in self._listed:
            self._listed[directory] = [entry.name for entry in list_inside(self._root, directory)]
            self._by_first.pop(directory, None)
        index = self._index(directory)
        others = self._longer.get(f"{directory}/{name}" if directory else name, ())
        return [
            file
            for file in index.get(name, ())
            if not any(file.startswith(other + ".") for other in others)
            and (f"{directory}/{file}" if directory else file) not in self._parents
        ]

    def _index(self, directory: str) -> dict[str, list[str]]:
        """Index a listing by every prefix that ends before a dot: `a.b.csv` may be the output of `a` or of `a.b`."""
        if directory not in self._by_first:
            index: dict[str, list[str]] = {}
            for file in self._listed[directory]:
                end = file.find(".", 1)
                while end != -1:
                    index.setdefault(file[:end], []).append(file)
                    end = file.find(".", end + 1)
            self._by_first[directory] = index
        return self._by_first[directory]


@contextmanager
def _in_store() -> Iterator[None]:
    """Keep a file of the store's that somebody removed apart from one that the script did not write."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreUnavailable(
            f"A file of the object store was removed while it was written: {error.filename}."
        ) from error


def _give(path: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


class _Checked:
    """A stream whose reading can be ended from within."""

    def __init__(self, file: BinaryIO, check: Callable[[], None]) -> None:
        self._file, self._check = file, check

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)


def _digest(file: BinaryIO, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        check()
        digest.update(block)
    return digest.hexdigest()


def _slashes(unit: str) -> list[int]:
    return [position for position, character in enumerate(unit) if character == "/"]


def _longer_names(units: tuple[str, ...]) -> dict[str, list[str]]:
    """Give for each unit the last parts of the units that extend it by a dot (`a` → [`a.b`])."""
    known = set(units)
    longer: dict[str, list[str]] = {}
    for unit in units:
        end = unit.rfind(".")
        while end > unit.rfind("/") + 1:
            if unit[:end] in known:
                longer.setdefault(unit[:end], []).append(unit.rpartition("/")[2])
            end = unit.rfind(".", 0, end)
    return longer
