"""Read what branch code wrote, without following it anywhere: no symlink, no FIFO, no device, no way out."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import BinaryIO

from runner.errors import OutputRefused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO must not hold the reader up before fstat can tell what it is.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Each level costs a walk from the root; nobody's outputs lie deeper.
MAX_DEPTH = 100
REMOVALS = 10  # tries to remove a tree of which another one removes parts too


def open_inside(root: Path, relative: str) -> BinaryIO:
    """Open the regular file `relative` below `root`, each step without following links.

    Raises FileNotFoundError, or OutputRefused for anything that is no regular file inside of `root`.
    """
    *directories, name = relative.split("/")
    current = os.open(root, _DIRECTORY)
    try:
        for directory in directories:
            below = _step(directory, current, _DIRECTORY, relative)
            os.close(current)
            current = below
        file = _step(name, current, _FILE, relative)
    finally:
        os.close(current)
    kind = os.fstat(file).st_mode
    if not stat.S_ISREG(kind):
        os.close(file)
        raise OutputRefused(f"{relative} is {_kind(kind)}, not a regular file.")
    return os.fdopen(file, "rb")


def _step(name: str, directory: int, flags: int, relative: str, wanted: str = "a regular file") -> int:
    if name in ("", ".", ".."):
        raise OutputRefused(f"{relative} leads out of its directory.")
    try:
        return os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        try:
            kind = _kind(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        except OSError:
            raise FileNotFoundError(relative) from error
        raise OutputRefused(f"{relative} is {kind}, not {wanted}.") from error


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if test(mode):
            return word
    return "a file that cannot be opened"


def list_inside(root: Path, relative: str) -> list[os.DirEntry[str]]:
    """List a directory below `root` without following links; empty when there is none."""
    current = os.open(root, _DIRECTORY)
    try:
        for directory in [part for part in relative.split("/") if part]:
            try:
                below = _step(directory, current, _DIRECTORY, relative)
            except FileNotFoundError:
                return []
            os.close(current)
            current = below
        with os.scandir(current) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    finally:
        os.close(current)


def check_directory(root: Path, relative: str) -> Path:
    """Give the directory `relative` below `root` when no step on the way there is a link.

    Raises FileNotFoundError, or OutputRefused for anything that is no directory inside of `root`.
    """
    current = os.open(root, _DIRECTORY)
    try:
        for directory in [part for part in relative.split("/") if part not in ("", ".")]:
            below = _step(directory, current, _DIRECTORY, relative, "a directory of this tree")
            os.close(current)
            current = below
    finally:
        os.close(current)
    return root / relative


def walk_inside(root: Path, relative: str = "", *, limit: int = 100_000) -> list[str]:
    """List the paths of everything below `root` that is no directory, in order; OutputRefused above `limit`."""
    found: list[str] = []
    pending = [relative]
    while pending:
        directory = pending.pop()
        if directory.count("/") >= MAX_DEPTH:
            raise OutputRefused(f"The output directory is more than {MAX_DEPTH} levels deep: {directory[:80]}…")
        for entry in list_inside(root, directory):
            path = f"{directory}/{entry.name}" if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                found.append(path)
            if len(found) + len(pending) > limit:
                raise OutputRefused(f"The output directory holds more than {limit:,} files.")
    return sorted(found)


def remove_tree(root: Path) -> None:
    """Remove a directory that branch code wrote to, however deep it made it; safe to call twice, also at once."""
    try:
        _remove_with_others(root)
    except (OSError, RecursionError):
        # Deeper than Python's stack, or without permission for its owner: rm walks without either limit.
        for command in (["chmod", "-R", "u+rwX", str(root)], ["rm", "-rf", "--one-file-system", str(root)]):
            subprocess.run(command, capture_output=True, check=False, timeout=600)


def _remove_with_others(root: Path) -> None:
    for _ in range(REMOVALS):
        if not os.path.lexists(root):
            return
        with contextlib.suppress(FileNotFoundError):  # it is gone, or another one removes it too
            shutil.rmtree(root)
    raise OSError(f"{root} stays, whatever is removed of it")


class Tail:
    """Follow a file that grows, from a byte offset; opened at once where it is there, without following links.

    It holds on to the file that it opened, whatever is put in its place.
    """

    def __init__(self, root: Path, name: str, offset: int = 0) -> None:
        self._root, self._name = root, name
        self._file: BinaryIO | None = None
        self.offset = offset
        with contextlib.suppress(OutputRefused):  # told by whoever reads it
            self._open()

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = open_inside(self._root, self._name)
            except FileNotFoundError:
                return None
        return self._file

    def read(self, limit: int) -> bytes:
        """Give what came since, at most `limit` bytes; empty when nothing did or the file is not there."""
        file = self._open()
        if file is None or limit <= 0:
            return b""
        data = os.pread(file.fileno(), limit, self.offset)
        self.offset += len(data)
        return data

    def left(self) -> int:
        """Give how many bytes of it are not read yet; negative when it is shorter than what was read of it."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size - self.offset

    def replaced(self) -> bool:
        """Tell whether another file stands under its name now."""
        if self._file is None:
            return False
        ours = os.fstat(self._file.fileno())
        try:
            there = os.stat(self._root / self._name, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def reopen(self) -> None:
        """Go on from the beginning of the file that stands under its name now."""
        self.close()
        self.offset = 0

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
