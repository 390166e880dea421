"""A commit's tree: its limits, checked on the listing before a single file is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from runner.errors import TreeRefused, TreeTooLarge

_NAME_LIMIT: Final = 255
"""Bytes: NAME_MAX of every common filesystem."""

_LINK: Final = b"120000"


@dataclass(frozen=True)
class TreeLimits:
    """What a commit's tree may hold. Sizes in bytes; `path_depth` in components, `path_length` in bytes."""

    files: int = 200_000
    bytes: int = 8 * 1024**3
    blob: int = 512 * 1024**2
    path_depth: int = 128
    path_length: int = 1_024


@dataclass
class TreeCheck:
    """Check the output of `git ls-tree -r -t -l -z` as it comes; `take` raises TreeTooLarge or TreeRefused.

    Directories count as files, so that a tree of nothing but nested empty trees comes to an end too. A path
    that stands twice (a symbolic link and a directory of the same name) would lead out of the target and is
    refused; symbolic links themselves are laid out as they are: in a workspace they see its own files only.

    `files` and `size` begin above zero when the listing tells only what a tree has besides one that was checked.
    """

    sha: str
    limits: TreeLimits
    files: int = 0
    size: int = 0
    _rest: bytes = b""
    _seen: set[bytes] = field(default_factory=set)
    _directories: set[bytes] = field(default_factory=lambda: {b""})

    def take(self, chunk: bytes) -> None:
        """Check one more piece of the listing."""
        *entries, self._rest = (self._rest + chunk).split(b"\0")
        for entry in entries:
            self._check(entry)
        # An entry that never ends is a path that is far too long.
        if len(self._rest) > self.limits.path_length + 100_000:
            raise self._path_too_long(self._rest)

    def _check(self, entry: bytes) -> None:
        limits = self.limits
        head, _, path = entry.partition(b"\t")
        mode, kind, _, size = head.split()
        self.files += 1
        if self.files > limits.files:
            raise TreeTooLarge(
                f"The tree of {self.sha[:12]} has more than {limits.files:,} files and directories (limit: files)."
            )
        if len(path) > limits.path_length:
            raise self._path_too_long(path)
        parts = path.split(b"/")
        if len(parts) > limits.path_depth:
            raise TreeTooLarge(
                f"The tree of {self.sha[:12]} has a path of {len(parts):,} levels, "
                f"at most {limits.path_depth:,} are allowed (limit: path_depth): {_shown(path)}"
            )
        name = parts[-1]
        if len(name) > _NAME_LIMIT:
            raise self._path_too_long(name, _NAME_LIMIT)
        if name in (b"", b".", b"..") or name.lower() == b".git":
            raise self._refused(path, "cannot be the name of a file")
        if path in self._seen:
            raise self._refused(path, "stands twice in it")
        self._seen.add(path)
        if path[: -len(name) - 1] not in self._directories:
            raise self._refused(path, "has a slash in its name")
        if kind == b"tree":
            self._directories.add(path)
        elif kind == b"blob":
            self._measure(path, int(size))
            if mode == _LINK and int(size) > 4_095:
                raise self._refused(path, "is a symbolic link to a longer path than there can be")

    def _measure(self, path: bytes, size: int) -> None:
        if size > self.limits.blob:
            raise TreeTooLarge(
                f"The tree of {self.sha[:12]} has a file of {size:,} bytes, "
                f"at most {self.limits.blob:,} are allowed (limit: blob): {_shown(path)}"
            )
        self.size += size
        if self.size > self.limits.bytes:
            raise TreeTooLarge(
                f"The files of {self.sha[:12]} have more than {self.limits.bytes:,} bytes in all (limit: bytes)."
            )

    def _path_too_long(self, path: bytes, limit: int | None = None) -> TreeTooLarge:
        limit = self.limits.path_length if limit is None else limit
        return TreeTooLarge(
            f"The tree of {self.sha[:12]} has a path of {len(path):,} bytes, "
            f"at most {limit:,} are allowed (limit: path_length): {_shown(path)}"
        )

    def _refused(self, path: bytes, why: str) -> TreeRefused:
        return TreeRefused(f"The tree of {self.sha[:12]} cannot be laid out: {_shown(path)} {why}.")


def _shown(path: bytes) -> str:
    return ascii(path[:120].decode("utf-8", "replace"))
