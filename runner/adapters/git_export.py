"""Lay a commit's files out: checked first, then written by git itself without hooks, filters or a worktree.

An index of its own and `checkout-index`: what `git checkout` does. `git archive` would obey export-ignore and
export-subst of the branch, and concurrent `git worktree add` fails now and then. Filters (LFS) need configuration to
run, and there is none: an LFS file stays the pointer that the commit holds. Line ends follow .gitattributes.

Measured beside `git worktree add` of the same mirror: see docs/benchmarks.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from runner.adapters.git_changes import Changes
from runner.adapters.git_command import GitFailed, GitRunner, disk_full_told
from runner.adapters.git_tree import TreeCheck, TreeLimits
from runner.adapters.tree_files import (
    empty,
    hand_over,
    hand_over_some,
    hide,
    link_tree,
    make_parents,
    owner_of,
    remove_empty,
)
from runner.errors import DiskFull, TreeRefused

_LISTING: Final = 120.0
_LAY_OUT: Final = 1_800.0
_WORKERS: Final = min(os.cpu_count() or 1, 8)
_FEW: Final = 500
"""Files for which a git process of their own does not pay."""
_MANY_CHANGES: Final = 5_000
"""Changes above which a tree is laid out whole, so that the next ones are near to that."""


@dataclass
class _Filling:
    """A directory that git fills. `size`: what the tree needs, in bytes, as far as that is known."""

    env: dict[str, str]
    size: int = 0


@dataclass(frozen=True)
class TreeExport:
    """Lays out trees of one mirror. `checked`: a directory for the totals of trees that kept the limits."""

    git: GitRunner
    checked: Path
    limits: TreeLimits

    def heeding(self, check: Callable[[], None]) -> TreeExport:
        """Give this one, but such that its gits heed `check` (see GitRunner.heeding): several at once may call it."""
        return replace(self, git=self.git.heeding(check))

    def lay_out(self, sha: str, target: Path, near: tuple[str, Path] | None = None) -> None:
        """Fill the empty directory `target`, for its owner; it is empty again when this raises.

        `near`: another commit and its tree, laid out before and never changed; files that are the same become hard
        links to its files. Raises TreeTooLarge, TreeRefused, DiskFull, GitFailed.
        """
        with self._filling(sha, target) as filling:
            changes = None if near is None else self._changes(sha, *near)
            filling.size = self._check(sha, changes, near)
            if near is None or changes is None or not self._beside(near[1], changes, target, filling.env):
                self._whole(sha, target, filling.env)

    def lay_over(self, sha: str, target: Path, near: tuple[str, Path]) -> bool:
        """Fill the empty directory `target` as the layer of an overlay that lies on the tree of `near`.

        False, and `target` is empty, where a whole tree serves better. Raises as lay_out does.
        """
        changes = self._changes(sha, *near)
        hidden = None if changes is None else changes.whiteouts()
        if changes is None or hidden is None or len(changes.lines) > _MANY_CHANGES:
            return False
        with self._filling(sha, target) as filling:
            filling.size = self._check(sha, changes, near)
            if not hide(target, hidden):
                empty(target)
                return False
            # The whole index, because git looks for .gitattributes in it.
            self.git.run(["read-tree", sha], timeout=_LAY_OUT, env=filling.env, cwd=target)
            self._write(target, filling.env, list(changes.files()))
            hand_over(target)
        return True

    @contextmanager
    def _filling(self, sha: str, target: Path) -> Iterator[_Filling]:
        """Give an index of its own to git; tell its errors as ours, and leave nothing behind after one."""
        index = target.with_name(f".{target.name}.index")
        filling = _Filling({"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(target)})
        done = False
        try:
            with disk_full_told():
                yield filling
            done = True
        except GitFailed as error:
            raise self._told(error, sha, target, filling.size) from None
        finally:
            index.unlink(missing_ok=True)
            index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
            if not done:
                empty(target)

    # ---- the limits -----------------------------------------------------------------------------------

    def _check(self, sha: str, changes: Changes | None, near: tuple[str, Path] | None) -> int:
        """Check a tree, as it was noted, by what it has otherwise than its neighbour, or by its whole listing.

        Gives its size in bytes.
        """
        known = self._noted(sha)
        if known is not None:
            return known.size
        base = None if changes is None or near is None else self._noted(near[0])
        check = TreeCheck(sha, self.limits)
        if changes is not None and base is not None:
            check.files, check.size = base.files, base.size
            changes.check(self.git, check)
        else:
            self.git.run(["ls-tree", "-r", "-t", "-l", "-z", sha], timeout=_LISTING, take=check.take)
        self._note(sha, check)
        return check.size

    def _noted(self, sha: str) -> TreeCheck | None:
        """Give the totals of a tree that was checked against these very limits."""
        with suppress(FileNotFoundError, ValueError):  # a crash of the host may have left an empty file
            files, size, limits = (self.checked / sha).read_text("ascii").split(" ", 2)
            if limits == f"{self.limits}\n":
                return TreeCheck(sha, self.limits, int(files), int(size))
        return None

    def _note(self, sha: str, totals: TreeCheck) -> None:
        with suppress(OSError):  # it is only to save time
            self.checked.mkdir(exist_ok=True)
            fresh = self.checked / f".{sha}-{os.getpid()}-{os.urandom(4).hex()}"
            fresh.write_text(f"{totals.files} {totals.size} {self.limits}\n", "ascii")
            fresh.replace(self.checked / sha)

    # ---- the files ------------------------------------------------------------------------------------

    def _changes(self, sha: str, base: str, near: Path) -> Changes | None:
        """Give what differs from a neighbour; None when it is no help."""
        changes = Changes.between(self.git, base, sha)
        return None if changes is None or changes.attributes() or changes.twice(near) else changes

    def _beside(self, near: Path, changes: Changes, target: Path, env: dict[str, str]) -> bool:
        """Lay out what differs beside links to the rest; False, and an empty target, when links cannot be made."""
        try:
            link_tree(near, target, changes.outdated())
        except OSError:  # another filesystem, too many links to one file, a tree that was just removed
            empty(target)
            return False
        remove_empty(target, changes.deleted())
        entries = changes.index()
        if entries:
            self.git.run(["update-index", "-z", "--index-info"], timeout=_LAY_OUT, env=env, cwd=target, stdin=entries)
            self._write(target, env, list(changes.files()))
        hand_over_some(target, changes.present())  # no directory is there for a tree without files
        return True

    def _whole(self, sha: str, target: Path, env: dict[str, str]) -> None:
        self.git.run(["read-tree", sha], timeout=_LAY_OUT, env=env, cwd=target)
        owner = owner_of(target)
        writer = owner if owner is not None and self.git.can_be(owner) else None
        *paths, _ = self.git.run(["ls-files", "-z"], timeout=_LISTING, env=env, cwd=target).split(b"\0")
        # All beforehand: of two that make the same directory at once one would fail.
        make_parents(target, paths)
        # What the others are laid out by comes first, so that nobody reads half of it.
        attributes = [path for path in paths if os.path.basename(path) == b".gitattributes"]
        self._write(target, env, attributes, writer)
        rest = [path for path in paths if os.path.basename(path) != b".gitattributes"] if attributes else paths
        each = max(_FEW, -(-len(rest) // _WORKERS))
        parts = [rest[start : start + each] for start in range(0, len(rest), each)]
        with ThreadPoolExecutor(_WORKERS) as pool:
            for done in [pool.submit(self._write, target, env, part, writer) for part in parts]:
                done.result()
        if writer != owner:
            hand_over(target)

    def _write(self, target: Path, env: dict[str, str], paths: list[bytes], user: int | None = None) -> None:
        """Let git write some files, as their owner where it can: to give them away afterwards costs a sixth more."""
        if paths:
            self.git.run(
                ["checkout-index", "--quiet", "-z", "--stdin"],
                timeout=_LAY_OUT,
                env=env,
                cwd=target,
                stdin=b"\0".join([*paths, b""]),
                user=user,
            )

    def _told(self, error: GitFailed, sha: str, target: Path, size: int) -> Exception:
        # Not always does git say why it could not write.
        space = os.statvfs(target)
        if space.f_bavail * space.f_frsize < size or (space.f_files and not space.f_favail):
            return DiskFull(f"The host's disk is full: the tree of {sha[:12]} needs {size:,} bytes.")
        refused = re.search(r"[Ii](nvalid path '.*')", error.stderr)
        if refused is None:
            return error
        return TreeRefused(f"The tree of {sha[:12]} cannot be laid out: {'i' + refused[1]!a}.")
