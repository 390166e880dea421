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

from runner.adapters.file_lock import locked_within
from runner.adapters.git_command import disk_full_told
from runner.errors import RepositoryUnavailable
from runner.ports import Mirror
from runner.quantities import format_duration

_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", re.ASCII)
_SHA: Final = re.compile(r"[0-9a-f]{40}\Z|[0-9a-f]{64}\Z", re.ASCII)
_OVER: Final = ".over"
_WORKSPACE_UID: Final = 10001
_LONGEST: Final = 3600.0
"""Seconds that a lock is waited for: a fetch of half an hour and the largest tree end before, a process that hangs never."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Exporter(Mirror, Protocol):
    """A mirror that can lay a tree out beside one of another commit, sharing what is the same."""

    def export(
        self,
        sha: str,
        target: Path,
        *,
        near: tuple[str, Path] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Lay the commit's files out as Mirror.export says, with hard links to the tree of `near` where it pays.

        They belong to the owner of the directory `target`, as those of `near` do.
        """
        ...

    def export_over(
        self, sha: str, target: Path, near: tuple[str, Path], *, check: Callable[[], None] = lambda: None
    ) -> bool:
        """Lay out what an overlay needs besides the tree of `near`; False where a whole tree serves better."""
        ...


class TreeCache:
    """A `Trees` (see runner.ports) in directories `root/<project>/<commit>`.

    `<commit>.over` holds only what that commit has otherwise than another one whose whole tree stands: an overlay lays
    the one on the other. Beside a tree lies its lock, which tells the boot and the commit that it lies on.

    Nothing writes to a tree after it has been put there, and `root` is open to its owner alone; a container gets a
    tree as the lower layer of an overlay or as a read-only mount. Its files belong to the workspace's uid (10001 when
    the worker is root, else the worker's own) and keep the modes that git gives them: an overlay shows them so, and
    its writable view would otherwise refuse the workspace everywhere but at the top.

    `executions` is where the host's workspaces are (see runner.workspace): what their trees lie on is not pruned.

    A tree is marked with the machine's boot, because it is not synced to disk: after a crash of the host its files may
    be empty, so trees of an earlier boot are laid out again.
    """

    def __init__(
        self,
        root: Path,
        mirror_for: Callable[[str], Exporter],
        *,
        keep: int = 32,
        owner: int | None = None,
        executions: Path | None = None,
    ) -> None:
        self._root = root
        self._executions = executions
        self._mirror_for = mirror_for
        self._keep = keep
        self._owner = owner if owner is not None else (_WORKSPACE_UID if os.geteuid() == 0 else os.geteuid())
        self._boot = _BOOT.read_text().strip()

    def get(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> Path:
        """Give the tree of a commit (see Trees.get); it stays for as long as it is among the last used or held."""
        tree = self._place(project, sha)
        if self._stands(tree) is None:
            self._obtain(project, sha, tree, self._make, check)
        return tree

    def layers(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> tuple[Path, ...]:
        """Give the tree of a commit as layers (see Trees.layers): itself, or what it has otherwise and the other one."""
        tree = self._place(project, sha)
        if self._stands(tree) is not None:
            return (tree,)
        over = tree.with_name(f"{sha}{_OVER}")
        base = self._stands(over) or self._obtain(project, sha, over, self._make_over, check)
        if not base:
            return (self.get(project, sha, check=check),)
        return over, tree.with_name(base)

    def _place(self, project: str, sha: str) -> Path:
        if not _PROJECT.match(project) or not _SHA.match(sha):
            raise ValueError(f"not a project and a full commit: {project!a} {sha!a}")
        return self._root / project / sha

    def _obtain(
        self,
        project: str,
        sha: str,
        tree: Path,
        make: Callable[[str, str, Path, Callable[[], None]], str | None],
        check: Callable[[], None],
    ) -> str | None:
        """Have a tree made, unless another process does so meanwhile; give what `make` gave."""
        with disk_full_told():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree.parent.mkdir(exist_ok=True)
            with _lock(_lock_file(tree), fcntl.LOCK_EX, check) as lock:
                base = self._stands(tree)
                if base is not None:  # another one has just done it
                    return base
                _sweep(tree)
                base = make(project, sha, tree, check)
                if base is not None:
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{self._boot} {base}".encode(), 0)
        self.prune()
        return base

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
        """Remove the trees least recently used beyond `keep`, save those that are held, in use or mounted; give them."""
        trees = sorted(self._trees(), key=_last_use, reverse=True)
        mounts = Path("/proc/self/mountinfo").read_text() if len(trees) > self._keep else ""
        used = self._used() if len(trees) > self._keep else set()
        removed: list[Path] = []
        for tree in trees[self._keep :]:
            if str(tree) in used or f"{tree}:" in mounts or f"{tree}," in mounts or f"{tree} " in mounts:
                continue
            with suppress(BlockingIOError), _lock(_lock_file(tree), fcntl.LOCK_EX | fcntl.LOCK_NB):
                _sweep(tree)
                removed.append(tree)
        for left in self._root.glob("[!.]*/.new-*"):  # by a process that was killed, or by one that is at it
            tree = left.with_name(left.name.split("-")[1])
            with suppress(BlockingIOError), _lock(_lock_file(tree), fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
        return removed

    def _used(self) -> set[str]:
        """Name the layers of the executions on this host: a worker in a container does not see what is mounted for them."""
        used: set[str] = set()
        for file in self._executions.glob("*/tree") if self._executions is not None else ():
            with suppress(FileNotFoundError):  # it has just ended
                used.update(file.read_text("utf-8").splitlines())
        return used

    def _stands(self, tree: Path) -> str | None:
        """Tell whether a tree is there to be used, and note that it was: the commit it lies on ("": none), else None."""
        try:
            with _lock_file(tree).open("rb") as file:
                boot, _, base = file.read().decode("ascii", "replace").partition(" ")
                if boot != self._boot or not tree.is_dir():
                    return None
                os.utime(file.fileno())
        except FileNotFoundError:
            return None
        # Later than the one that lies on it, so that it never goes before that.
        return None if base and self._stands(tree.with_name(base)) is None else base

    def _make(self, project: str, sha: str, tree: Path, check: Callable[[], None]) -> str:
        mirror = self._mirror_for(project)
        mirror.ensure(sha, check=check)
        with self._making(tree) as fresh, self._neighbour(tree) as near:
            mirror.export(sha, fresh, near=near, check=check)
            _put(fresh, tree)
        return ""

    def _make_over(self, project: str, sha: str, over: Path, check: Callable[[], None]) -> str | None:
        """Lay out what a commit has otherwise than the last used tree; give that one's commit, or None when it cannot."""
        mirror = self._mirror_for(project)
        mirror.ensure(sha, check=check)
        with self._making(over) as fresh, self._neighbour(over) as near:
            if near is None or not mirror.export_over(sha, fresh, near, check=check):
                return None
            _put(fresh, over)
            return near[0]

    @contextmanager
    def _making(self, tree: Path) -> Iterator[Path]:
        """Give an empty directory of the workspace's beside where a tree is to stand; it is gone at the block's end."""
        making = Path(mkdtemp(prefix=f".new-{tree.name}-", dir=tree.parent))
        try:
            fresh = making / "tree"
            fresh.mkdir()
            os.chown(fresh, self._owner, -1)
            yield fresh
        finally:
            shutil.rmtree(making, ignore_errors=True)

    @contextmanager
    def _neighbour(self, tree: Path) -> Iterator[tuple[str, Path] | None]:
        """Give the project's whole tree that was used last, held, or None."""
        whole = [other for other in self._trees(tree.parent) if _SHA.match(other.name)]
        for other in sorted(whole, key=_last_use, reverse=True)[:1]:
            with suppress(BlockingIOError), _lock(_lock_file(other), fcntl.LOCK_SH | fcntl.LOCK_NB):
                if self._stands(other) is not None:
                    yield other.name, other
                    return
        yield None

    def _trees(self, *projects: Path) -> list[Path]:
        found: list[Path] = []
        for project in projects or self._root.glob("[!.]*"):
            found += [entry for entry in project.iterdir() if _SHA.match(entry.name.removesuffix(_OVER))]
        return found


def _lock_file(tree: Path) -> Path:
    return tree.with_name(f".{tree.name}.lock")


def _last_use(tree: Path) -> float:
    try:
        return _lock_file(tree).stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _lock(path: Path, how: int, check: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold a lock; with LOCK_NB raises BlockingIOError when another one does, else waits for as long as `check` lets it.

    Raises RepositoryUnavailable when that was too long.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if how & fcntl.LOCK_NB:
            fcntl.flock(lock, how)
        elif not locked_within(lock, how, seconds=_LONGEST, check=check):
            sha = path.name.strip(".")[:12]
            raise RepositoryUnavailable(
                f"Another process of this host has been at the tree of {sha} for {format_duration(_LONGEST)}: "
                "see which one holds its lock, and end it."
            )
        yield lock
    finally:
        os.close(lock)


def _put(fresh: Path, tree: Path) -> None:
    fresh.chmod(0o755)
    fresh.rename(tree)


def _sweep(tree: Path) -> None:
    """Remove a tree and what a killed process left of it; moved aside first, so that it is never half there."""
    if tree.exists():
        tree.rename(mkdtemp(prefix=f".new-{tree.name}-", dir=tree.parent))
    for left in tree.parent.glob(f".new-{tree.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
