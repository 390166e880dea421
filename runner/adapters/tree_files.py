"""What is done to laid-out trees without git: directories, hard links, whiteouts, owners."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

# What it waits for is the file system, which can do two directories at once.
_WORKERS: Final = min(os.cpu_count() or 1, 8)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def owner_of(tree: Path) -> int | None:
    """Give the uid that a tree belongs to when that is another one than ours."""
    owner = tree.stat().st_uid
    return None if owner == os.geteuid() else owner


def make_parents(tree: Path, paths: Iterable[bytes]) -> None:
    """Make the directories, for the owner of `tree`, that hold these paths; nothing else may be in it yet."""
    top, owner = os.fsencode(tree), owner_of(tree)
    made = {b""}

    def make(directory: bytes) -> None:
        if directory in made:
            return
        make(os.path.dirname(directory))
        made.add(directory)
        place = os.path.join(top, directory)
        os.mkdir(place)
        os.chmod(place, 0o755)  # noqa: S103 - as git makes them, whatever the umask
        if owner is not None:
            os.chown(place, owner, owner)

    for path in paths:
        make(os.path.dirname(path))


def link_tree(near: Path, target: Path, without: Collection[bytes]) -> None:
    """Fill the empty directory `target` with hard links to the files of `near`, its directories made anew.

    The directories belong to the owner of `target`. `without`: paths (bytes, relative) of files and directories that
    are left out. Raises OSError, and then leaves what it has done.
    """
    source, to = os.fsencode(near), os.fsencode(target)
    owner = owner_of(target)

    def link(inside: bytes) -> list[bytes]:
        below = []
        place = os.path.join(source, inside)
        taken = os.open(place, _DIRECTORY)
        made = os.open(os.path.join(to, inside), _DIRECTORY)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    path = os.path.join(inside, entry.name)
                    if path in without:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(entry.name, 0o755, dir_fd=made)
                        below.append(path)
                    else:
                        os.link(entry.name, entry.name, src_dir_fd=taken, dst_dir_fd=made, follow_symlinks=False)
            os.fchmod(made, 0o755)
            if owner is not None:
                os.fchown(made, owner, owner)
        finally:
            os.close(taken)
            os.close(made)
        return below

    _walk(link)


def hide(layer: Path, paths: Collection[bytes]) -> bool:
    """Make an overlay hide these paths of the layers below; False where this host does not let us.

    A whiteout is a device 0:0, which every user may make since Linux 5.8.
    """
    top = os.fsencode(layer)
    try:
        make_parents(layer, paths)
        for path in paths:
            os.mknod(os.path.join(top, path), stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError:
        return False
    return True


def hand_over(tree: Path) -> None:
    """Give everything in a tree to the owner of its top; links are given, not followed."""
    owner = owner_of(tree)
    if owner is None:
        return
    top = os.fsencode(tree)

    def give(inside: bytes) -> list[bytes]:
        below = []
        place = os.path.join(top, inside)
        held = os.open(place, _DIRECTORY)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(os.path.join(inside, entry.name))
                    else:
                        os.chown(entry.name, owner, owner, dir_fd=held, follow_symlinks=False)
            os.fchown(held, owner, owner)
        finally:
            os.close(held)
        return below

    _walk(give)


def hand_over_some(tree: Path, paths: Iterable[bytes]) -> None:
    """Give some files and directories of a tree, where they exist, to the owner of its top."""
    owner = owner_of(tree)
    if owner is None:
        return
    for path in paths:
        with suppress(FileNotFoundError):
            os.lchown(os.path.join(os.fsencode(tree), path), owner, owner)


def remove_empty(target: Path, deleted: Collection[bytes]) -> None:
    """Remove the directories that lost their last file, from the deepest up."""
    top = os.fsencode(target)
    for parent in {os.path.dirname(path) for path in deleted}:
        while parent:
            try:
                os.rmdir(os.path.join(top, parent))
            except OSError:  # it still holds something, or is gone already
                break
            parent = os.path.dirname(parent)


def empty(directory: Path) -> None:
    """Remove everything in a directory."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _walk(visit: Callable[[bytes], list[bytes]]) -> None:
    """Visit the directories that each visit finds, level by level, beginning at the top."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        level = [b""]
        while level:
            level = [path for found in pool.map(visit, level) for path in found]
