"""The host's cache of exported trees: one directory a commit, shared by everything that runs it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Protocol

from runner.adapters.git_command import disk_full_told
from runner.ports import Mirror

_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", re.ASCII)
_SHA: Final = re.compile(r"[0-9a-f]{40}\Z|[0-9a-f]{64}\Z", re.ASCII)
_WORKSPACE_UID: Final = 10001
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Exporter(Mirror, Protocol):
    """A mirror that can lay a tree out beside one of another commit, sharing what is the same."""

    def export(self, sha: str, target: Path, *, near: tuple[str, Path] | None = None) -> None:
        """Lay the commit's files out as Mirror.export says, with hard links to the tree of `near` where it pays."""
        ...


class TreeCache:
    """A `Trees` (see runner.ports) in directories `root/<project>/<commit>`.

    Nothing writes to a tree after it has been put there, and `root` is open to its owner alone; a container gets a
    tree as the lower layer of an overlay or as a read-only mount. Its files belong to the workspace's uid (10001 when
    the worker is root, else the worker's own) and keep the modes that git gives them: an overlay shows them so, and
    its writable view would otherwise refuse the workspace everywhere but at the top.

    A tree is marked with the machine's boot, because it is not synced to disk: after a crash of the host its files may
    be empty, so trees of an earlier boot are laid out again.
    """

    def __init__(
        self, root: Path, mirror_for: Callable[[str], Exporter], *, keep: int = 32, owner: int | None = None
    ) -> None:
        self._root = root
        self._mirror_for = mirror_for
        self._keep = keep
        self._owner = owner if owner is not None else (_WORKSPACE_UID if os.geteuid() == 0 else os.geteuid())
        self._boot = _BOOT.read_text().strip()

    def get(self, project: str, sha: str) -> Path:
        """Give the tree of a commit (see Trees.get); it stays for as long as it is among the last used or held."""
        if not _PROJECT.match(project) or not _SHA.match(sha):
            raise ValueError(f"not a project and a full commit: {project!a} {sha!a}")
        tree = self._root / project / sha
        if self._stands(tree):
            return tree
        with disk_full_told():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree.parent.mkdir(exist_ok=True)
            with _lock(_lock_file(tree), fcntl.LOCK_EX) as lock:
                if self._stands(tree):  # another one has just done it
                    return tree
                _sweep(tree)
                self._make(project, sha, tree)
                os.pwrite(lock, self._boot.encode(), 0)
        self.prune()
        return tree

    @contextmanager
    def hold(self, project: str, sha: str) -> Iterator[Path]:
        """Give the tree of a commit and keep it from being pruned until the end of the block."""
        while True:
            tree = self.get(project, sha)
            with _lock(_lock_file(tree), fcntl.LOCK_SH):
                if tree.is_dir():
                    yield tree
                    return

    def prune(self) -> list[Path]:
        """Remove the trees least recently used beyond `keep`, save those that are held or mounted; give them."""
        trees = sorted(self._trees(), key=_last_use, reverse=True)
        mounts = Path("/proc/self/mountinfo").read_text() if len(trees) > self._keep else ""
        removed: list[Path] = []
        for tree in trees[self._keep :]:
            if f"{tree}:" in mounts or f"{tree}," in mounts or f"{tree} " in mounts:
                continue
            with suppress(BlockingIOError), _lock(_lock_file(tree), fcntl.LOCK_EX | fcntl.LOCK_NB):
                _sweep(tree)
                removed.append(tree)
        for left in self._root.glob("[!.]*/.new-*"):  # by a process that was killed, or by one that is at it
            tree = left.with_name(left.name.split("-")[1])
            with suppress(BlockingIOError), _lock(_lock_file(tree), fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
        return removed

    def _stands(self, tree: Path) -> bool:
        """Tell whether a tree is there to be used, and note that it was."""
        try:
            with _lock_file(tree).open("rb") as file:
                if file.read() != self._boot.encode() or not tree.is_dir():
                    return False
                os.utime(file.fileno())
                return True
        except FileNotFoundError:
            return False

    def _make(self, project: str, sha: str, tree: Path) -> None:
        mirror = self._mirror_for(project)
        mirror.ensure(sha)
        making = Path(mkdtemp(prefix=f".new-{sha}-", dir=tree.parent))
        try:
            fresh = making / "tree"
            with self._neighbour(tree) as near:
                mirror.export(sha, fresh, near=near)
            fresh.chmod(0o755)
            _give(fresh, self._owner)
            fresh.rename(tree)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    @contextmanager
    def _neighbour(self, tree: Path) -> Iterator[tuple[str, Path] | None]:
        """Give the project's tree that was used last, held, or None."""
        others = sorted(self._trees(tree.parent), key=_last_use, reverse=True)
        for other in others[:1]:
            with suppress(BlockingIOError), _lock(_lock_file(other), fcntl.LOCK_SH | fcntl.LOCK_NB):
                if self._stands(other):
                    yield other.name, other
                    return
        yield None

    def _trees(self, *projects: Path) -> list[Path]:
        found: list[Path] = []
        for project in projects or self._root.glob("[!.]*"):
            found += [entry for entry in project.iterdir() if _SHA.match(entry.name)]
        return found


def _lock_file(tree: Path) -> Path:
    return tree.with_name(f".{tree.name}.lock")


def _last_use(tree: Path) -> float:
    try:
        return _lock_file(tree).stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _lock(path: Path, how: int) -> Iterator[int]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, how)
        yield lock
    finally:
        os.close(lock)


def _sweep(tree: Path) -> None:
    """Remove a tree and what a killed process left of it; moved aside first, so that it is never half there."""
    if tree.exists():
        tree.rename(mkdtemp(prefix=f".new-{tree.name}-", dir=tree.parent))
    for left in tree.parent.glob(f".new-{tree.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _give(tree: Path, owner: int) -> None:
    """Hand a tree to the workspace's uid; files that are linked from a neighbour belong to it already."""
    if owner == os.geteuid():
        return
    os.lchown(tree, owner, owner)
    for directory, names, files in os.walk(os.fsencode(tree)):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            if os.lstat(path).st_uid != owner:
                os.lchown(path, owner, owner)
