"""The tree of a commit: one used before, one near that, and any; against `git worktree add` from the same mirror."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, pairs, ratio_row
from runner.adapters.git_mirror import GitMirror
from runner.adapters.tree_cache import TreeCache

FILES = 13_000
SMALL = 500  # files of the repository that is checked out a thousand times
COMMITS = 30


def _git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def make_mirror(root: Path, files: int) -> tuple[GitMirror, list[str]]:
    """Make a repository and some commits, each near to the one before; give its mirror, and the commits pinned there.

    A hundredth of the files changes with each commit. A run's commit is pinned when it is submitted.
    """
    work = root / "work"
    work.mkdir(parents=True)
    _git("init", "-q", "-b", "main", cwd=work)
    who = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
    directories = files // 100
    for number in range(files):
        file = work / f"d{number % directories:03}" / f"f{number:05}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# file {number}\n" + "value = 1\n" * (number % 97))
    shas = []
    for commit in range(COMMITS):
        for number in range(files // 100):
            changed = (commit * (files // 100) + number) % files
            (work / f"d{changed % directories:03}" / f"f{changed:05}.py").write_text(f"# commit {commit}\n")
        _git("add", "-A", cwd=work)
        _git(*who, "commit", "-qm", f"commit {commit}", cwd=work)
        shas.append(_git("rev-parse", "HEAD", cwd=work))
    mirror = GitMirror(root / "mirror.git", str(work))
    for sha in ("main", *shas):
        mirror.resolve(sha)
    return mirror, shas


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    mirror, shas = make_mirror(root / "large", FILES)
    cache = TreeCache(root / "trees", lambda _: mirror, keep=1_000)
    cache.get("p", shas[0])
    counter = itertools.count()
    fresh = iter(shas[1:])

    def worktree() -> None:
        target = root / f"worktree-{next(counter)}"
        _git("worktree", "add", "--detach", "-f", str(target), shas[0], cwd=root / "large" / "mirror.git")

    def anything() -> None:
        alone = TreeCache(root / f"alone-{next(counter)}", lambda _: mirror)
        alone.get("p", next(fresh))

    floor = "git worktree add"
    again = pairs(worktree, lambda: cache.layers("p", shas[0]), rounds=7)
    yield ratio_row("tree of a commit used before", floor, again, 0.02)
    near = pairs(worktree, lambda: cache.layers("p", next(fresh)), rounds=9)
    yield ratio_row("tree of a commit near one used before", floor, near, 0.35, "as layers of an overlay")
    yield ratio_row("tree of any commit", floor, pairs(worktree, anything, rounds=9), 1.0)
    yield _concurrent(root, *make_mirror(root / "small", SMALL))


def _concurrent(root: Path, mirror: GitMirror, shas: list[str]) -> Row:
    """Check 1,000 trees out from 16 threads, into four caches that keep few of them."""
    failures: list[BaseException] = []
    work = iter(range(1_000))
    lock = threading.Lock()
    caches = [TreeCache(root / f"many-{number}", lambda _: mirror, keep=4) for number in range(4)]

    def one() -> None:
        while True:
            with lock:
                number = next(work, None)
            if number is None:
                return
            cache = caches[number % 4]
            try:
                (cache.get if number % 3 else cache.layers)("p", shas[number % len(shas)])
            except Exception as error:  # noqa: BLE001 - counted
                failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Row(
        "1,000 concurrent checkouts of one mirror",
        "",
        f"{len(failures)} failures",
        "0",
        not failures,
        str(failures[:1] or ""),
    )
