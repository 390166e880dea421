"""The tree of a commit: from the cache, near one that is cached, and any; against `git worktree add`."""

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
NEAR = 30  # commits that differ in a hundred files each


def _git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def make_repository(root: Path) -> tuple[Path, list[str]]:
    """Make a repository of 13,000 files and some commits near to each other; give it and the commits."""
    work = root / "work"
    work.mkdir()
    _git("init", "-q", "-b", "main", cwd=work)
    for number in range(FILES):
        file = work / f"d{number % 130:03}" / f"f{number:05}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# file {number}\n" + "value = 1\n" * (number % 97))
    shas = []
    for commit in range(NEAR):
        for number in range(commit * 100, commit * 100 + 100):
            (work / f"d{number % 130:03}" / f"f{number:05}.py").write_text(f"# commit {commit}\n")
        _git("add", "-A", cwd=work)
        who = ["-c", "user.name=b", "-c", "user.email=b@example.com"]
        _git(*who, "commit", "-qm", f"commit {commit}", cwd=work)
        shas.append(_git("rev-parse", "HEAD", cwd=work))
    return work, shas


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    repository, shas = make_repository(root)
    mirror = GitMirror(root / "mirror.git", str(repository))
    mirror.resolve("main")
    cache = TreeCache(root / "trees", lambda _: mirror, keep=1_000)
    cache.get("p", shas[0])
    counter = itertools.count()

    def worktree() -> None:
        target = root / f"worktree-{next(counter)}"
        _git("worktree", "add", "--detach", "-f", str(target), shas[0], cwd=root / "mirror.git")

    fresh = iter(shas[1:])
    yield ratio_row(
        "tree of a commit used before",
        "git worktree add",
        pairs(worktree, lambda: cache.get("p", shas[0]), rounds=9),
        0.02,
    )
    yield ratio_row(
        "tree of a commit near one used before",
        "git worktree add",
        pairs(worktree, lambda: cache.get("p", next(fresh)), rounds=9),
        0.35,
    )

    def anything() -> None:
        alone = TreeCache(root / f"alone-{next(counter)}", lambda _: mirror)
        alone.get("p", shas[-1])

    yield ratio_row("tree of any commit", "git worktree add", pairs(worktree, anything, rounds=7), 1.0)
    yield _concurrent(root, mirror, shas)


def _concurrent(root: Path, mirror: GitMirror, shas: list[str]) -> Row:
    """1,000 checkouts of one mirror from 16 threads; small trees' commits taken in turn, each cache its own."""
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
            try:
                caches[number % 4].get("p", shas[number % len(shas)])
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
