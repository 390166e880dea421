"""Files that stand only while a process is at them. It holds a lock on each: what nobody holds was left by one that died."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
# On NFS a lock that others may have too asks for a file that is open for reading, and one for oneself for writing.
_FILE = os.O_RDWR


@contextmanager
def passing_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file of a directory, made when missing, open for writing; at the block's end it is gone, or renamed."""
    path, held = _new(folder, lambda path: os.open(path, _FILE | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        with open(held, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def passing_directory(folder: Path) -> Iterator[Path]:
    """Give a new directory below another one, made when missing; at the block's end it is gone with all that is in it."""

    def make(path: Path) -> int:
        path.mkdir(mode=0o700)
        return os.open(path, _DIRECTORY | os.O_CLOEXEC)

    path, held = _new(folder, make)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _new(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make something and hold it; something else when that was removed before it was held.

    The lock is one that others may have too: a file that was renamed in the meantime is nobody's own any more.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / secrets.token_hex(16)
        with suppress(FileNotFoundError):
            held = make(path)
            try:
                fcntl.flock(held, fcntl.LOCK_SH)
                if _stands(path, held):
                    return path, held
            except BaseException:
                os.close(held)
                raise
            os.close(held)


def remove_left(folder: Path) -> Iterator[Path]:
    """Remove what stands in a directory and nobody holds, and give each. Safe to do twice at once.

    What cannot be removed keeps nothing else from it, and is raised as an OSError at the end. What has just been made and
    is not yet held may go too: its maker sees that, and makes another one.
    """
    problem = None
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if _removed(path):
                yield path
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem


def _removed(path: Path) -> bool:
    """Remove it unless somebody holds it, or it is gone; tell whether it was."""
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return False  # none of ours
    is_directory = path.is_dir()
    try:
        held = os.open(path, (_DIRECTORY if is_directory else _FILE) | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _stands(path, held):
            return False
        if is_directory:
            shutil.rmtree(path)
        else:
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(held)
    return True


def _stands(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(held))
    except FileNotFoundError:
        return False
