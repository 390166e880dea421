"""Lay a commit's files out: checked first, then written by git itself without hooks, filters or a worktree.

An index of its own and `checkout-index`: what `git checkout` does. `git archive` would obey export-ignore and
export-subst of the branch, and concurrent `git worktree add` fails now and then. Filters (LFS) need configuration to
run, and there is none: an LFS file stays the pointer that the commit holds. Line ends follow .gitattributes.

Measured beside `git worktree add` of the same mirror (13,000 files, 80 MB, ext4, 2 cores shared with others; medians of
5 pairs): 0.47; through the cache 0.33; beside the tree of a near commit (200 files differ) 0.08. In memory, where the
disk does not matter: 1.0, 1.2, 0.49.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from runner.adapters.git_command import GitFailed, GitRunner
from runner.adapters.git_tree import TreeCheck, TreeLimits
from runner.errors import DiskFull, TreeRefused

_LISTING: Final = 120.0
_LAY_OUT: Final = 1_800.0
_WORKERS: Final = min(os.cpu_count() or 1, 8)


def export_tree(
    git: GitRunner, sha: str, target: Path, limits: TreeLimits, near: tuple[str, Path] | None = None
) -> None:
    """Fill the empty directory `target`; it is empty again when this raises.

    `near`: another commit and its tree, laid out before and never changed; files that are the same become hard links
    to its files. Raises TreeTooLarge, TreeRefused, DiskFull, GitFailed.
    """
    check = TreeCheck(sha, limits)
    git.run(["ls-tree", "-r", "-t", "-l", "-z", sha], timeout=_LISTING, take=check.take)
    index = target.with_name(f".{target.name}.index")
    env = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(target)}
    done = False
    try:
        git.run(["read-tree", sha], timeout=_LAY_OUT, env=env, cwd=target)
        changed = _changed(git, sha, near[0]) if near is not None else None
        if near is None or changed is None or not _link(near[1], target, changed):
            _check_out(git, target, env, ["--all"])
        else:
            _check_out(git, target, env, ["-z", "--stdin"], stdin=b"".join(p + b"\0" for p in changed if changed[p]))
        done = True
    except GitFailed as error:
        # Not always does git say why it could not write.
        space = os.statvfs(target)
        if space.f_bavail * space.f_frsize < check.size or (space.f_files and not space.f_favail):
            raise DiskFull(f"The host's disk is full: the tree of {sha[:12]} needs {check.size:,} bytes.") from None
        refused = re.search(r"invalid path '.*'", error.stderr)
        if refused is None:
            raise
        raise TreeRefused(f"The tree of {sha[:12]} cannot be laid out: {refused.group()!a}.") from None
    finally:
        index.unlink(missing_ok=True)
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
        if not done:
            _empty(target)


def _check_out(git: GitRunner, target: Path, env: dict[str, str], what: list[str], *, stdin: bytes = b"") -> None:
    command = ["-c", f"checkout.workers={_WORKERS}", "checkout-index", "--quiet", *what]
    git.run(command, timeout=_LAY_OUT, env=env, cwd=target, stdin=stdin)


def _changed(git: GitRunner, sha: str, base: str) -> dict[bytes, bool] | None:
    """Give the paths that differ from `base` and whether they are in `sha`; None when line ends may differ too."""
    output = git.run(["diff-tree", "-r", "-z", "--no-renames", "--raw", base, sha], timeout=_LISTING)
    fields = output.split(b"\0")
    changed = {path: not head.endswith(b" D") for head, path in zip(fields[0:-1:2], fields[1::2], strict=True)}
    attributes = any(path == b".gitattributes" or path.endswith(b"/.gitattributes") for path in changed)
    return None if attributes else changed


def _link(near: Path, target: Path, changed: dict[bytes, bool]) -> bool:
    """Fill `target` with hard links to what is the same; False (and an empty target) when links cannot be made."""
    top = os.fsencode(near)
    try:
        for directory, names, files in os.walk(top, onerror=_raise):
            inside = directory[len(top) + 1 :]
            to = os.path.join(os.fsencode(target), inside)
            # What was a directory and is something else now has nothing below it that is still the same.
            names[:] = [name for name in names if os.path.join(inside, name) not in changed]
            for name in names:
                source = os.path.join(directory, name)
                if os.path.islink(source):
                    os.link(source, os.path.join(to, name), follow_symlinks=False)
                else:
                    os.mkdir(os.path.join(to, name), 0o755)
            for name in files:
                if os.path.join(inside, name) not in changed:
                    os.link(os.path.join(directory, name), os.path.join(to, name), follow_symlinks=False)
    except OSError:  # another filesystem, too many links to one file, a tree that was just removed
        _empty(target)
        return False
    _remove_empty(target, {path for path, kept in changed.items() if not kept})
    return True


def _raise(error: OSError) -> None:
    raise error


def _remove_empty(target: Path, deleted: set[bytes]) -> None:
    """Remove the directories that lost their last file, from the deepest up."""
    top = os.fsencode(target)
    for path in deleted:
        parent = os.path.dirname(path)
        while parent:
            try:
                os.rmdir(os.path.join(top, parent))
            except OSError:  # it still holds something, or is gone already
                break
            parent = os.path.dirname(parent)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
