from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures_git import Repository, contents

from runner.adapters.git_memory import MemoryMirror, MemoryRemote
from runner.adapters.git_mirror import GitMirror, TreeLimits
from runner.adapters.tree_cache import TreeCache
from runner.errors import RepositoryUnavailable, TreeTooLarge


class Counting(GitMirror):
    """A mirror that notes what it exports."""

    def __init__(self, path: Path, repository: str, *, limits: TreeLimits = TreeLimits()) -> None:  # noqa: B008
        super().__init__(path, repository, limits=limits)
        self.exports: list[tuple[str, str | None]] = []

    def export(self, sha: str, target: Path, *, near: tuple[str, Path] | None = None) -> None:
        self.exports.append((sha, near[0] if near else None))
        super().export(sha, target, near=near)


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "remote.git")


@pytest.fixture
def mirror(tmp_path: Path, remote: Repository) -> Counting:
    return Counting(tmp_path / "mirror.git", str(remote.path))


@pytest.fixture
def cache(tmp_path: Path, mirror: Counting) -> TreeCache:
    return TreeCache(tmp_path / "trees", lambda _: mirror, keep=2)


def test_a_tree_is_made_once_however_many_ask(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.branch("main", {"a": b"1", "d/b": b"2"})
    with ThreadPoolExecutor(8) as pool:
        trees = set(pool.map(lambda _: cache.get("p", sha), range(40)))
    assert trees == {tmp_path / "trees/p" / sha}
    assert contents(trees.pop()) == {"a": b"1", "d/b": b"2"}
    assert mirror.exports == [(sha, None)]
    other = TreeCache(tmp_path / "trees", lambda _: mirror)
    assert other.get("p", sha).is_dir()
    assert len(mirror.exports) == 1
    assert not list((tmp_path / "trees").rglob(".new-*"))


def test_another_commits_tree_is_shared_where_it_is_the_same(
    mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    cache = TreeCache(tmp_path / "trees", lambda _: mirror)
    one = remote.branch("one", {"same": b"1", "d/changed": b"2"})
    two = remote.branch("two", {"same": b"1", "d/changed": b"3"})
    first, second = cache.get("p", one), cache.get("p", two)
    assert mirror.exports == [(one, None), (two, one)]
    assert contents(second) == {"same": b"1", "d/changed": b"3"}
    assert contents(first) == {"same": b"1", "d/changed": b"2"}
    assert (first / "same").samefile(second / "same")
    other = cache.get("q", one)
    assert not (first / "same").samefile(other / "same")


def test_a_workspace_may_write_over_it_and_the_tree_stays_as_it_was(
    cache: TreeCache, remote: Repository, tmp_path: Path
) -> None:
    assert os.geteuid() == 0, "the suite runs as root"
    sha = remote.branch("main", {"d/e/f": b"1", "run": ("100755", b"")})
    tree = cache.get("p", sha)
    assert {path.lstat().st_uid for path in [tree, *tree.rglob("*")]} == {10001}
    assert (tmp_path / "trees").stat().st_mode & 0o777 == 0o700
    before = contents(tree)
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 10001, 10001)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    options = f"lowerdir={tree},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "merged")], check=True)
    try:
        script = "echo 2 >d/e/f && echo 3 >d/e/new && rm run && mkdir d/x && chmod 700 d"
        subprocess.run(["sh", "-c", script], cwd=tmp_path / "merged", user=10001, group=10001, check=True)
        assert contents(tmp_path / "merged") == {"d/e/f": b"2\n", "d/e/new": b"3\n"}
        assert contents(tree) == before
        remote.branch("a", {"a": b""})
        for name in "abc":
            cache.get("p", remote.branch(name, {name: b""}))
        assert tree.is_dir(), "mounted trees stay"
    finally:
        subprocess.run(["umount", str(tmp_path / "merged")], check=True)
    assert cache.prune() == [tree]


def test_the_least_recently_used_go_and_the_held_stay(cache: TreeCache, remote: Repository) -> None:
    shas = [remote.branch(f"b{n}", {"n": b"%d" % n}) for n in range(5)]

    def used(n: int) -> Path:
        time.sleep(0.01)  # more than a tick of the filesystem's clock
        return cache.get("p", shas[n])

    trees = [used(0), used(1)]
    used(0)
    used(2)
    assert not trees[1].exists()
    with cache.hold("p", shas[0]) as held:
        for n in (1, 3, 4):
            used(n)
        assert held.is_dir()
    assert cache.prune() == [trees[0]]
    assert contents(used(0)) == {"n": b"0"}


def test_held_trees_survive_a_storm_of_pruning(mirror: Counting, remote: Repository, tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "trees", lambda _: mirror, keep=1)
    shas = [remote.branch(f"b{n}", {"n": b"%d" % n, "same": b"s"}) for n in range(6)]
    end = threading.Event()

    def use(n: int) -> int:
        with cache.hold("p", shas[n % 6]) as tree:
            time.sleep(0.002)
            return int((tree / "n").read_bytes()) - n % 6

    def prune() -> None:
        while not end.is_set():
            cache.prune()

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(use, range(60))) == {0}
    finally:
        end.set()
        pruner.join()


def test_what_cannot_be_laid_out_leaves_nothing_and_is_tried_again(remote: Repository, tmp_path: Path) -> None:
    sha = remote.branch("main", {f"f{n}": b"" for n in range(4)})
    small = Counting(tmp_path / "mirror.git", str(remote.path), limits=TreeLimits(files=3))
    cache = TreeCache(tmp_path / "trees", lambda _: small)
    for _ in range(2):
        with pytest.raises(TreeTooLarge):
            cache.get("p", sha)
    with pytest.raises(RepositoryUnavailable):
        cache.get("p", "f" * 40)
    assert [p for p in (tmp_path / "trees/p").iterdir() if not p.name.endswith(".lock")] == []
    assert len(small.exports) == 2


@pytest.mark.parametrize(("project", "sha"), [("..", "a" * 40), ("a/b", "a" * 40), ("", "a" * 40), ("p", "main")])
def test_misuse_is_refused(cache: TreeCache, project: str, sha: str) -> None:
    with pytest.raises(ValueError, match="not a project and a full commit"):
        cache.get(project, sha)


def test_a_killed_worker_leaves_nothing_that_counts(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.bulk("main", {f"d{n % 20}/f{n}": os.urandom(200) for n in range(1_500)})
    mirror.resolve("main")
    script = (
        "from pathlib import Path\nfrom runner.adapters.git_mirror import GitMirror\n"
        "from runner.adapters.tree_cache import TreeCache\n"
        f"mirror = GitMirror(Path({str(tmp_path / 'mirror.git')!r}), {str(remote.path)!r})\n"
        f"TreeCache(Path({str(tmp_path / 'trees')!r}), lambda _: mirror).get('p', {sha!r})\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while worker.poll() is None and not list((tmp_path / "trees").glob("p/.new-*/tree/d1")):
        assert time.monotonic() < deadline
    worker.kill()
    worker.wait()
    tree = cache.get("p", sha)
    mirror.export(sha, tmp_path / "plain")
    assert contents(tree) == contents(tmp_path / "plain")
    while list((tmp_path / "trees/p").glob(".new-*")):  # for as long as the git that it started writes on
        cache.prune()
        assert time.monotonic() < deadline


def test_a_tree_of_an_earlier_boot_is_laid_out_again(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.branch("main", {"a": b"1"})
    tree = cache.get("p", sha)
    (tree / "a").write_bytes(b"")
    (tmp_path / "trees/p" / f".{sha}.lock").write_text("00000000-0000-0000-0000-000000000000")
    assert contents(cache.get("p", sha)) == {"a": b"1"}
    assert len(mirror.exports) == 2


def test_the_twin_serves_as_well(tmp_path: Path) -> None:
    remote = MemoryRemote()
    shas = [remote.commit({"a": b"%d" % n}) for n in range(2)]
    mirror = MemoryMirror(remote)
    for n, sha in enumerate(shas):
        remote.set("refs/heads/main", sha)
        mirror.fetch()
        assert contents(TreeCache(tmp_path / "t", lambda _: mirror).get("p", sha)) == {"a": b"%d" % n}
    shutil.rmtree(tmp_path / "t")
