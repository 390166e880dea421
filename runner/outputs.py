"""Find, check and store the outputs of units."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import LimitExceeded, OutputRefused
from runner.files import list_inside, open_inside, walk_inside
from runner.model import Output
from runner.ports import Objects


@dataclass(frozen=True)
class Stamp:
    """By what a file is known to be unchanged without reading it again."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, file: BinaryIO) -> Stamp:
        status = os.fstat(file.fileno())
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Outputs:
    """The output directory of one execution."""

    def __init__(self, root: Path, objects: Objects, units: tuple[str, ...], *, file_limit: int) -> None:
        self._root = root
        self._objects = objects
        self._file_limit = file_limit
        self._longer = _longer_names(units)
        self._listed: dict[str, list[str]] = {}
        self._by_first: dict[str, dict[str, list[str]]] = {}
        self._stamps: dict[str, tuple[str, Stamp, Output]] = {}

    def take(self, unit: str) -> Output:
        """Store the output of a finished unit.

        Raises FileNotFoundError when it has none, OutputRefused or LimitExceeded when it cannot be one.
        """
        path = self._find(unit)
        with open_inside(self._root, path) as file:
            before = Stamp.of(file)
            if before.size > self._file_limit:
                raise LimitExceeded(
                    f"The output {path} has {before.size:,} bytes; limits.file is {self._file_limit:,}."
                )
            digest, size = self._objects.put(file)
        output = Output(path.rsplit("/", 1)[-1], digest, size)
        self._stamps[unit] = (path, before, output)
        return output

    def changed(self) -> dict[str, Output | None]:
        """Give the units whose output is no longer what was stored at their mark, with what it is now, if anything."""
        found: dict[str, Output | None] = {}
        for unit, (path, stamp, output) in self._stamps.items():
            try:
                with open_inside(self._root, path) as file:
                    if Stamp.of(file) == stamp:
                        continue
                    digest, size = self._objects.put(file)
            except (FileNotFoundError, OutputRefused):
                found[unit] = None
                continue
            if digest != output.digest:
                found[unit] = Output(output.name, digest, size)
        return found

    def take_all(self) -> Output:
        """Store the whole directory as one output: a manifest of its files."""
        manifest: dict[str, dict[str, object]] = {}
        total = 0
        for path in walk_inside(self._root):
            with open_inside(self._root, path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > self._file_limit:
                    raise LimitExceeded(f"The output {path} has {size:,} bytes; limits.file is {self._file_limit:,}.")
                digest, size = self._objects.put(file)
            name = path.encode("utf-8", "backslashreplace").decode()
            manifest[name] = {"digest": digest, "size": size}
            total += size
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()
        digest, _ = self._objects.put(io.BytesIO(text))
        return Output("output", digest, total, tree=True)

    def restore(self, output: Output, owner: tuple[int, int]) -> None:
        """Write the files of a manifest back, as the script left them."""
        with self._objects.open(output.digest) as file:
            manifest: dict[str, dict[str, Any]] = json.load(file)
        for name, entry in manifest.items():
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
        return [file for file in index.get(name, ()) if not any(file.startswith(other + ".") for other in others)]

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


def _give(path: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


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
