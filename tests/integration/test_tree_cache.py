from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from fixtures_git import Repository, contents
from loop_mounts import unmount

from runner.adapters.git_memory import MemoryMirror, MemoryRemote
from runner.adapters.git_mirror import GitMirror, TreeLimits
from runner.adapters.tree_cache import TreeCache
from runner.errors import Cancelled, RepositoryUnavailable, TreeRefused, TreeTooLarge
from runner.workspace import Workspace


class Counting(GitMirror):
    """A mirror that notes what it exports."""

    def __init__(self, path: Path, repository: str, *, limits: TreeLimits = TreeLimits()) -> None:  # noqa: B008
        super().__init__(path, repository, limits=limits)
        self.exports: list[tuple[str, str | None]] = []

    def export(
        self,
        sha: str,
        target: Path,
        *,
        near: tuple[str, Path] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.exports.append((sha, near[0] if near else None))
        super().export(sha, target, near=near, check=check)


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


# What a commit may have otherwise than another one, in all kinds that an overlay has to show.
BEFORE: dict[str, bytes | tuple[str, bytes]] = {
    "same/a": b"a",
    "same/link": ("120000", b"a"),
    "changed": b"old",
    "mode": b"x",
    "gone": b"x",
    "gone-too/deep/x": b"x",
    "gone-too/y": b"y",
    "half/gone": b"x",
    "half/kept": b"x",
    "file-to-dir": b"x",
    "dir-to-file/a/b": b"x",
    "link-to-dir": ("120000", b"same"),
    "dir-to-link/x": b"x",
    "sub": ("160000", b"a" * 40),
    "sub-gone": ("160000", b"a" * 40),
    "lines/.gitattributes": b"*.bat text eol=crlf\n",
    "lines/a.bat": b"1\n",
}
AFTER: dict[str, bytes | tuple[str, bytes]] = {
    "same/a": b"a",
    "same/link": ("120000", b"a"),
    "changed": b"new",
    "mode": ("100755", b"x"),
    "half/kept": b"x",
    "file-to-dir/x": b"y",
    "dir-to-file": b"y",
    "link-to-dir/x": b"y",
    "dir-to-link": ("120000", b"same"),
    "added/deep/x": b"z",
    "sub": ("160000", b"b" * 40),
    "sub-new": ("160000", b"b" * 40),
    "lines/.gitattributes": b"*.bat text eol=crlf\n",
    "lines/a.bat": b"2\n",
}


def seen(tree: Path) -> list[tuple[str, int, int, bytes | str]]:
    """List a tree as its readers see it: path, mode, owner, content."""
    found: list[tuple[str, int, int, bytes | str]] = []
    for path in sorted(tree.rglob("*")):
        about = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found.append((str(path.relative_to(tree)), about.st_mode, about.st_uid, content))
    return found


@contextmanager
def mounted(layers: tuple[Path, ...], base: Path) -> Iterator[Path]:
    """Mount layers as a workspace gets them."""
    for name in ("upper", "work", "merged"):
        (base / name).mkdir(parents=True)
        os.chown(base / name, 10001, 10001)
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={base / 'upper'},workdir={base / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(base / "merged")], check=True)
    try:
        yield base / "merged"
    finally:
        unmount(base / "merged")


def test_layers_show_exactly_what_the_whole_tree_holds(mirror: Counting, remote: Repository, tmp_path: Path) -> None:
    one, two = remote.branch("one", BEFORE), remote.branch("two", AFTER)
    full = remote.branch("full", {**AFTER, "sub-gone/x": b"x"})  # what was the place of a submodule
    for first, second, name in ((one, two, "there"), (two, one, "back"), (one, full, "full")):
        cache = TreeCache(tmp_path / name, lambda _: mirror)
        before = os.umask(0o077)
        try:
            [whole] = cache.layers("p", first)
            over, base = cache.layers("p", second)
        finally:
            os.umask(before)
        assert (base, over.name) == (whole, f"{second}.over")
        assert cache.layers("p", second) == (over, base)
        assert not (over / "same").exists(), "what is the same is not laid out"
        plain = TreeCache(tmp_path / f"{name}-plain", lambda _: mirror).get("p", second)
        with mounted((over, base), tmp_path / f"{name}-mount") as merged:
            assert seen(merged) == seen(plain)
            assert (merged / "lines/a.bat").read_bytes().endswith(b"\r\n")
            script = "rm -r half lines && mkdir half && echo 1 >half/gone && echo 2 >>changed && chmod 700 same"
            subprocess.run(["sh", "-c", script], cwd=merged, user=10001, group=10001, check=True)
            assert os.listdir(merged / "half") == ["gone"]
        with mounted((over, base), tmp_path / f"{name}-again") as merged:
            assert seen(merged) == seen(plain), "nothing of it was written to"
        assert cache.get("p", second) != over
        assert cache.layers("p", second) == (cache.get("p", second),)


@pytest.mark.parametrize(
    "change",
    [
        {".gitattributes": b"* text eol=crlf\n"},
        {"dir": ("160000", b"a" * 40)},
        {f"many/{n}": b"" for n in range(5_001)},
    ],
)
def test_where_layers_are_of_no_use_the_tree_is_whole(
    mirror: Counting, remote: Repository, tmp_path: Path, change: dict[str, bytes | tuple[str, bytes]]
) -> None:
    cache = TreeCache(tmp_path / "trees", lambda _: mirror)
    one = remote.branch("one", {"dir/a": b"1\n", "b": b"1\n"})
    if len(change) > 100:
        two = remote.bulk("two", dict.fromkeys(change, b""))
    else:
        two = remote.branch("two", {**({} if "dir" in change else {"dir/a": b"1\n"}), "b": b"1\n", **change})
    cache.get("p", one)
    [tree] = cache.layers("p", two)
    mirror.export(two, tmp_path / "plain")
    assert contents(tree) == contents(tmp_path / "plain")
    assert not list((tmp_path / "trees").rglob(".new-*"))


def test_the_limits_hold_for_what_is_new(remote: Repository, tmp_path: Path) -> None:
    limits = TreeLimits(files=6, bytes=100, blob=60, path_depth=3, path_length=40)
    small = Counting(tmp_path / "mirror.git", str(remote.path), limits=limits)
    cache = TreeCache(tmp_path / "trees", lambda _: small)
    base: dict[str, bytes | tuple[str, bytes]] = {"a": b"x" * 50, "d/b": b"y" * 20}
    cache.get("p", remote.branch("base", base))
    for limit, more in {
        "files": {"e/1": b"", "e/2": b"", "e/3": b""},
        "blob": {"c": b"x" * 61},
        "bytes": {"c": b"x" * 31},
        "path_depth": {"d/e/f/g": b""},
        "path_length": {"x" * 41: b""},
    }.items():
        with pytest.raises(TreeTooLarge, match=rf"limit: {limit}\)"):
            cache.layers("p", remote.branch(limit, {**base, **more}))
    full = remote.branch("full", {"a": b"x" * 30, "d/b": b"y" * 10, "e/1": b"z" * 60, "e/2": b""})
    assert len(cache.layers("p", full)) == 2, "what is gone makes room"
    assert not list((tmp_path / "trees").rglob(".new-*"))


def test_a_path_that_stands_twice_is_refused_beside_another_tree(
    mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    cache = TreeCache(tmp_path / "trees", lambda _: mirror)
    outside = tmp_path / "outside"
    outside.mkdir()
    link, data = remote.blob(os.fsencode(outside)), remote.blob(b"pwned")
    inner = remote.tree([("100644", data, b"file")])
    sound, other = ("120000", link, b"a"), ("40000", inner, b"a")
    for n, (before, after) in enumerate((([], [sound, other]), ([sound], [sound, other]), ([other], [sound, other]))):
        near = remote.commit_tree(remote.tree([*before, ("100644", data, b"b%d" % n)]))
        sha = remote.commit_tree(remote.tree([*after, ("100644", data, b"b%d" % n)]))
        remote.set(f"refs/heads/near{n}", near)
        remote.set(f"refs/heads/bad{n}", sha)
        cache.get("p", near)
        for ask in (cache.layers, cache.get):
            with pytest.raises(TreeRefused, match="twice"):
                ask("p", sha)
        bad = remote.commit_tree(remote.tree([("100644", data, b"git~1"), ("100644", data, b"b%d" % n)]))
        remote.set(f"refs/heads/name{n}", bad)
        with pytest.raises(TreeRefused, match="invalid path"):
            cache.layers("p", bad)
    assert list(outside.iterdir()) == []


def test_a_layer_goes_with_the_tree_that_it_lies_on(mirror: Counting, remote: Repository, tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "trees", lambda _: mirror, keep=3)
    shas = [remote.branch(f"b{n}", {"n": b"%d" % n, "same": b"s"}) for n in range(6)]
    whole = cache.get("p", shas[0])
    for sha in shas[1:]:
        time.sleep(0.03)  # more than a tick of the filesystem's clock
        over, base = cache.layers("p", sha)
        assert base == whole, "it stays, because what lies on it was used"
    assert sorted(path.name for path in (tmp_path / "trees/p").glob("*.over")) == sorted(f"{s}.over" for s in shas[-2:])
    shutil.rmtree(whole)
    [tree] = cache.layers("p", shas[-1])
    assert contents(tree) == {"n": b"5", "same": b"s"}
    assert cache.layers("p", shas[-2])[-1] == tree
    (tmp_path / "trees/p" / f".{shas[-2]}.over.lock").write_text(f"00000000-0000-0000-0000-000000000000 {shas[-1]}")
    assert cache.layers("p", shas[-2]) == (over.with_name(f"{shas[-2]}.over"), tree)


def test_the_layers_of_an_execution_stay_although_no_mount_of_them_is_seen(
    mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    executions = tmp_path / "executions"
    cache = TreeCache(tmp_path / "trees", lambda _: mirror, keep=2, executions=executions)
    shas = [remote.branch(f"b{n}", {f"{m}": b"%d" % (n * 10 + m) for m in range(9)}) for n in range(6)]
    cache.get("p", shas[0])
    used = cache.layers("p", shas[1])
    workspace = Workspace(executions / "one")
    workspace.lay_out([], None, used)
    for sha in shas[2:]:
        time.sleep(0.03)  # more than a tick of the filesystem's clock
        cache.get("p", sha)
    assert [layer.is_dir() for layer in used] == [True] * len(used)
    assert not cache.prune()
    workspace.remove()
    assert sorted(cache.prune()) == sorted(used)


def test_many_ask_for_layers_at_once(mirror: Counting, remote: Repository, tmp_path: Path) -> None:
    shas = [remote.branch(f"b{n}", {"n": b"%d" % n, **{f"d/{m}": b"%d" % m for m in range(30)}}) for n in range(8)]
    caches = [TreeCache(tmp_path / "trees", lambda _: mirror, keep=40) for _ in range(4)]
    caches[0].get("p", shas[0])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: caches[n % 4].layers("p", shas[n % 8]), range(160)))
    for n, layers in enumerate(found):
        assert (layers[0] / "n").read_bytes() == b"%d" % (n % 8)
        assert layers[-1].name == shas[0]
    assert not list((tmp_path / "trees").rglob(".new-*"))


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
        unmount(tmp_path / "merged")
    assert cache.prune() == [tree]


def test_the_least_recently_used_go_and_the_held_stay(cache: TreeCache, remote: Repository) -> None:
    shas = [remote.branch(f"b{n}", {"n": b"%d" % n}) for n in range(5)]

    def used(n: int) -> Path:
        time.sleep(0.03)  # more than a tick of the filesystem's clock
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


def test_whoever_waits_for_a_tree_that_another_one_makes_is_heard(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.branch("main", {"a": b"1"})
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 20:
            raise Cancelled

    (tmp_path / "trees/p").mkdir(parents=True)
    for ask, name in ((cache.get, f".{sha}.lock"), (cache.layers, f".{sha}.over.lock")):
        looks.clear()
        with (tmp_path / "trees/p" / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(Cancelled):
                ask("p", sha, check=look)
        assert median(after - before for before, after in pairwise(looks)) < 0.2
    assert contents(cache.layers("p", sha)[0]) == {"a": b"1"}


def test_whoever_hangs_over_a_tree_is_an_outage_to_others_in_the_end(
    cache: TreeCache, remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = remote.branch("main", {"a": b"1"})
    monkeypatch.setattr("runner.adapters.tree_cache._LONGEST", 0.2)
    (tmp_path / "trees/p").mkdir(parents=True)
    with (tmp_path / f"trees/p/.{sha}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RepositoryUnavailable, match=f"the tree of {sha[:12]}"):
            cache.get("p", sha)
    assert contents(cache.get("p", sha)) == {"a": b"1"}


def test_a_tree_that_is_called_off_leaves_nothing_and_is_laid_out_the_next_time(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.bulk("main", {f"d{n % 20}/f{n}": b"%d" % n for n in range(3_000)})
    mirror.resolve("main")

    def look() -> None:
        if list((tmp_path / "trees").glob("p/.new-*/tree/d1/*")):
            raise Cancelled

    with pytest.raises(Cancelled):
        cache.get("p", sha, check=look)
    assert [path.name for path in (tmp_path / "trees/p").iterdir()] == [f".{sha}.lock"]
    assert len(contents(cache.get("p", sha))) == 3_000


def test_a_mirror_that_was_made_anew_may_lack_the_commit_of_the_neighbour(
    cache: TreeCache, mirror: Counting, remote: Repository, tmp_path: Path
) -> None:
    cache.get("p", remote.branch("main", {"a": b"1"}))
    shutil.rmtree(tmp_path / "mirror.git")
    sha = remote.branch("main", {"a": b"2"})
    remote.git("prune", "--expire=now")
    assert contents(cache.layers("p", sha)[0]) == {"a": b"2"}


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
    deadline = time.monotonic() + 30
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
