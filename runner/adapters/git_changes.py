"""What a commit's tree has otherwise than another one's, and whether it is still within the limits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runner.adapters.git_command import GitFailed, GitRunner
from runner.adapters.git_tree import TreeCheck

_LISTING: Final = 120.0
_TREE: Final = b"040000"
_SUBMODULE: Final = b"160000"
_NONE: Final = b"000000"
_EMPTY: Final = (
    b"4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    b"6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
)
"""The tree without entries, by SHA-1 and SHA-256."""
_USEFUL: Final = 32 << 20
"""Bytes of a listing that is still read: some 200,000 files."""


class _TooMany(Exception):
    """There are so many changes that the whole listing is not worse."""


@dataclass(frozen=True)
class _Change:
    """One line of `git diff-tree`: what stood there (`000000`: nothing), and what stands there now."""

    path: bytes
    old_mode: bytes
    mode: bytes
    old: bytes
    new: bytes


@dataclass(frozen=True)
class Changes:
    """The lines of `git diff-tree -r -t` between two commits."""

    lines: tuple[_Change, ...]

    @classmethod
    def between(cls, git: GitRunner, base: str, sha: str) -> Changes | None:
        """Ask git; None when there are too many to be of use, or the mirror was made anew without the base's commit.

        Raises GitFailed.
        """
        output = bytearray()

        def take(chunk: bytes) -> None:
            output.extend(chunk)
            if len(output) > _USEFUL:
                raise _TooMany

        try:
            command = ["diff-tree", "-r", "-t", "-z", "--no-renames", "--raw", base, sha]
            git.run(command, timeout=_LISTING, take=take)
        except _TooMany:
            return None
        except GitFailed as error:
            if f"bad object {base}" in error.stderr:
                return None
            raise
        fields = bytes(output).split(b"\0")
        lines = []
        for head, path in zip(fields[0:-1:2], fields[1::2], strict=True):
            old_mode, mode, old, new, _ = head.split()
            lines.append(_Change(path, old_mode.removeprefix(b":"), mode, old, new))
        return cls(tuple(lines))

    def attributes(self) -> bool:
        """Tell whether a .gitattributes differs: then files that are the same may be laid out with other line ends."""
        return any(os.path.basename(line.path) == b".gitattributes" for line in self.lines)

    def twice(self, near: Path) -> bool:
        """Tell whether a path of the new tree may stand twice in it; `near` is the tree of the base as laid out.

        The base is sound, so a path of the new tree stands twice when it was added twice, or was added where the base
        has one that stays.
        """
        added = [line.path for line in self.lines if line.old_mode == _NONE]
        gone = {line.path for line in self.lines if line.mode == _NONE}
        new = set(added)
        present = [line.path for line in self.lines if line.mode != _NONE]
        if len(set(present)) < len(present):
            return True
        top = os.fsencode(near)
        return any(os.path.lexists(os.path.join(top, path)) for path in new - gone if os.path.dirname(path) not in new)

    def check(self, git: GitRunner, check: TreeCheck) -> None:
        """Add what is new to a check that begins with the base's totals; raises as TreeCheck does, and GitFailed."""
        sizes = self._sizes(git)
        for line in self.lines:
            if line.old_mode != _NONE:
                check.files -= 1
                check.size -= sizes.get(line.old, 0) if _has_size(line.old_mode) else 0
        for line in self.lines:
            if line.mode == _NONE:
                continue
            kind = b"tree" if line.mode == _TREE else b"commit" if line.mode == _SUBMODULE else b"blob"
            size = b"%d" % sizes[line.new] if kind == b"blob" else b"-"
            check.take(b"%s %s %s %s\t%s\0" % (line.mode, kind, line.new, size, line.path))

    def _sizes(self, git: GitRunner) -> dict[bytes, int]:
        wanted = {line.old for line in self.lines if _has_size(line.old_mode)}
        wanted |= {line.new for line in self.lines if _has_size(line.mode)}
        if not wanted:
            return {}
        command = ["cat-file", "--batch-check=%(objectname) %(objectsize)"]
        answer = git.run(command, timeout=_LISTING, stdin=b"".join(name + b"\n" for name in wanted))
        sizes = {}
        for told in answer.splitlines():
            name, size = told.split()
            if not size.isdigit():
                raise GitFailed("its data is damaged", f"object {name.decode()} is {size.decode()}")
            sizes[name] = int(size)
        return sizes

    def outdated(self) -> frozenset[bytes]:
        """Give the paths whose files, or whole directories, are not to be taken over from the base."""
        return frozenset(line.path for line in self.lines if line.mode == _NONE or line.mode != _TREE)

    def deleted(self) -> set[bytes]:
        """Give the paths of files that are gone."""
        return {line.path for line in self.lines if line.mode == _NONE and line.old_mode != _TREE}

    def present(self) -> Iterable[bytes]:
        """Give the paths, directories included, that are new or other than they were."""
        return (line.path for line in self.lines if line.mode != _NONE)

    def whiteouts(self) -> list[bytes] | None:
        """Give the paths that an overlay has to hide, each with all that lies below it; None where that is not enough:
        the place of a submodule is an empty directory, which cannot hide a full one, and a tree without files none."""
        gone = {line.path for line in self.lines if line.mode == _NONE}
        for line in self.lines:
            if line.new in _EMPTY or (line.mode == _SUBMODULE and line.path in gone):
                return None
        kept = set(self.present())
        return [path for path in gone if path not in kept and os.path.dirname(path) not in gone]

    def files(self) -> Iterable[bytes]:
        """Give the paths of the files that are to be written."""
        return (line.path for line in self.lines if line.mode not in (_NONE, _TREE))

    def index(self) -> bytes:
        """Give the input of `git update-index -z --index-info` for the files that are to be written."""
        return b"".join(
            b"%s %s\t%s\0" % (line.mode, line.new, line.path) for line in self.lines if line.mode not in (_NONE, _TREE)
        )


def _has_size(mode: bytes) -> bool:
    return mode not in (_NONE, _TREE, _SUBMODULE)
