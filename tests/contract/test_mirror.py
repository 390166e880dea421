from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
from fixtures_git import Repository, contents

from runner.adapters.git_memory import MemoryMirror, MemoryRemote
from runner.adapters.git_mirror import GitMirror, TreeLimits
from runner.errors import (
    Cancelled,
    RefNotFound,
    RefRefused,
    RemoteUnavailable,
    RepositoryUnavailable,
    TreeRefused,
    TreeTooLarge,
)
from runner.model import Ref, RefKind
from runner.ports import Mirror


class World(Protocol):
    """A remote that tests write to, and the mirror of it that is tried."""

    mirror: Mirror

    def commit(self, files: Mapping[str, bytes], subject: str = "change") -> str: ...
    def set(self, full: str, sha: str) -> None: ...
    def delete(self, full: str) -> None: ...
    def break_off(self) -> None: ...


class GitWorld(Repository):
    def __init__(self, base: Path) -> None:
        super().__init__(base / "remote.git")
        self.mirror: Mirror = GitMirror(base / "mirror.git", str(self.path), limits=TreeLimits(files=8))

    def break_off(self) -> None:
        self.path.rename(self.path.with_suffix(".gone"))


class MemoryWorld(MemoryRemote):
    def __init__(self) -> None:
        super().__init__()
        self.mirror: Mirror = MemoryMirror(self, files=8)

    def break_off(self) -> None:
        self.down = "there is no repository"


@pytest.fixture(params=["git", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return GitWorld(tmp_path) if request.param == "git" else MemoryWorld()


def publish(world: World, name: str, files: Mapping[str, bytes] | None = None) -> str:
    sha = world.commit(files or {"name": name.encode()}, f"make {name}")
    world.set(f"refs/heads/{name}", sha)
    return sha


def test_each_kind_of_ref_is_pinned(world: World) -> None:
    main = publish(world, "main")
    tagged = world.commit({"a": b"1"})
    world.set("refs/tags/v1", tagged)
    pull = world.commit({"a": b"2"})
    world.set("refs/pull/7/head", pull)
    resolve = world.mirror.resolve
    assert resolve("main").ref == Ref("main", RefKind.BRANCH, main)
    assert resolve("refs/heads/main").ref == Ref("main", RefKind.BRANCH, main)
    assert resolve("v1").ref == Ref("v1", RefKind.TAG, tagged)
    assert resolve("refs/pull/7/head").ref == Ref("refs/pull/7/head", RefKind.PULL, pull)
    assert resolve(main).ref == Ref(main, RefKind.COMMIT, main)
    assert resolve(main[:7]).ref == resolve(main[:20].upper()).ref == Ref(main, RefKind.COMMIT, main)


def test_the_commit_is_described(world: World) -> None:
    sha = publish(world, "main")
    commit = world.mirror.resolve("main").commit
    assert (commit.sha, commit.subject, commit.author) == (sha, "make main", "Ann Author")
    assert commit.at.tzinfo == UTC
    assert datetime(2026, 1, 1, tzinfo=UTC) <= commit.at < datetime(2026, 1, 2, tzinfo=UTC)
    assert world.mirror.commit(sha) == commit


@pytest.mark.parametrize("name", ["-x", "--upload-pack=touch pwned", "@{-1}", "a..b", "HEAD^{/x}", "a\0", "x" * 300])
def test_hostile_names_are_refused(world: World, name: str) -> None:
    publish(world, "main")
    with pytest.raises(RefRefused):
        world.mirror.resolve(name)


@pytest.mark.parametrize("name", ["mai", "Main", "origin/main", "HEAD", "heads/main", "refs/heads", "\u202eniam", "🚢"])
def test_other_names_are_not_found(world: World, name: str) -> None:
    publish(world, "main")
    with pytest.raises(RefNotFound) as caught:
        world.mirror.resolve(name)
    assert caught.value.field == "ref"
    assert caught.value.value == name
    assert caught.value.remedy


def test_the_nearest_name_is_offered(world: World) -> None:
    publish(world, "feature/rounding")
    with pytest.raises(RefNotFound) as caught:
        world.mirror.resolve("feature/roundng")
    assert (caught.value.remedy or "").startswith("Did you mean 'feature/rounding'? ")
    with pytest.raises(RefNotFound) as caught:
        world.mirror.resolve("something-else")
    assert "Did you mean" not in (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["🚢/שלום", "\u202eniam", "a'b\"$(x);&|<>%s{{7-7}}", "x" * 60 + "/" + "y" * 60])
def test_odd_names_that_exist_are_found(world: World, name: str) -> None:
    sha = publish(world, name)
    assert world.mirror.resolve(name).ref == Ref(name, RefKind.BRANCH, sha)
    assert world.mirror.refs(name[:3])[0].name == name


def test_commits_that_are_not_there(world: World) -> None:
    publish(world, "main")
    for name in ("f" * 40, "f" * 7, "f" * 12):
        with pytest.raises(RefNotFound):
            world.mirror.resolve(name)
    with pytest.raises(RefNotFound):
        world.mirror.commit("f" * 40)


def test_a_branch_that_looks_like_a_commit_wins(world: World) -> None:
    main = publish(world, "main")
    other = publish(world, main[:8])
    assert world.mirror.resolve(main[:8]).ref == Ref(main[:8], RefKind.BRANCH, other)
    assert world.mirror.resolve(main[:9]).ref.sha == main


def test_a_branch_wins_over_a_tag(world: World) -> None:
    branch = publish(world, "x")
    tag = world.commit({"a": b"tag"})
    world.set("refs/tags/x", tag)
    assert world.mirror.resolve("x").ref.sha == branch
    assert world.mirror.resolve("refs/tags/x").ref == Ref("refs/tags/x", RefKind.TAG, tag)
    assert {ref.name for ref in world.mirror.refs()} == {"x", "refs/tags/x"}


def test_a_moved_branch_is_seen_and_the_old_commit_kept(world: World, tmp_path: Path) -> None:
    old = publish(world, "main")
    assert world.mirror.resolve("main").ref.sha == old
    new = publish(world, "main", {"a": b"rewritten"})
    assert world.mirror.resolve("main").ref.sha == new
    world.mirror.export(old, tmp_path / "old")
    world.mirror.export(new, tmp_path / "new")
    assert contents(tmp_path / "old") == {"name": b"main"}
    assert contents(tmp_path / "new") == {"a": b"rewritten"}


def test_a_deleted_branch_is_gone_and_its_pinned_commit_is_not(world: World) -> None:
    sha = publish(world, "topic")
    publish(world, "main")
    world.mirror.resolve("topic")
    world.delete("refs/heads/topic")
    with pytest.raises(RefNotFound):
        world.mirror.resolve("topic")
    assert world.mirror.resolve(sha).ref.sha == sha
    world.mirror.ensure(sha)


def test_a_commit_that_was_never_fetched_and_is_gone(world: World) -> None:
    publish(world, "main")
    sha = publish(world, "topic")
    world.delete("refs/heads/topic")
    with pytest.raises(RepositoryUnavailable, match="gone"):
        world.mirror.ensure(sha)


def test_ensure_fetches(world: World) -> None:
    sha = publish(world, "main")
    world.mirror.ensure(sha)
    world.mirror.ensure(sha)
    assert world.mirror.commit(sha).sha == sha


def cancelled() -> None:
    raise Cancelled


def test_whoever_asks_is_heard_meanwhile_and_nothing_is_left_half_made(world: World, tmp_path: Path) -> None:
    sha = publish(world, "main", {"a": b"1"})
    with pytest.raises(Cancelled):
        world.mirror.ensure(sha, check=cancelled)
    with pytest.raises(RepositoryUnavailable):
        world.mirror.export(sha, tmp_path / "early")
    world.mirror.ensure(sha)
    with pytest.raises(Cancelled):
        world.mirror.export(sha, tmp_path / "out", check=cancelled)
    assert list((tmp_path / "out").iterdir()) == []
    world.mirror.export(sha, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"1"}


def test_an_unreachable_remote_never_gives_a_stale_answer(world: World) -> None:
    sha = publish(world, "main")
    world.mirror.resolve("main")
    world.break_off()
    for name in ("main", sha[:8], "f" * 40):
        with pytest.raises(RemoteUnavailable) as caught:
            world.mirror.resolve(name, timeout=5)
        assert caught.value.field == "repository"
        assert caught.value.status == 503
    assert world.mirror.resolve(sha).ref.sha == sha
    world.mirror.ensure(sha)
    with pytest.raises(RepositoryUnavailable):
        world.mirror.ensure("f" * 40)


def test_an_empty_repository(world: World) -> None:
    with pytest.raises(RefNotFound):
        world.mirror.resolve("main")
    with pytest.raises(RefNotFound):
        world.mirror.resolve("f" * 40)
    assert world.mirror.refs() == []


def test_refs_are_listed_newest_first_without_the_remote(world: World) -> None:
    for n in range(6):
        publish(world, f"topic/{n}")
    publish(world, "main")
    assert world.mirror.refs() == []
    world.mirror.resolve("main")
    world.break_off()
    assert [ref.name for ref in world.mirror.refs()] == ["main", *(f"topic/{n}" for n in (5, 4, 3, 2, 1, 0))]
    assert [ref.name for ref in world.mirror.refs("pic/", limit=2)] == ["topic/5", "topic/4"]
    assert world.mirror.refs("--upload-pack=touch pwned") == []
    assert world.mirror.refs("*") == []


def test_files_are_read(world: World) -> None:
    sha = publish(world, "main", {"seatrial.yml": b"version: 1\n", "d/e/\u00fc [x]*": b"\xff\0", "big": b"x" * 100})
    world.mirror.ensure(sha)
    read = world.mirror.read_file
    assert read(sha, "seatrial.yml") == b"version: 1\n"
    assert read(sha, "d/e/\u00fc [x]*") == b"\xff\0"
    assert read(sha, "big", limit=100) == b"x" * 100
    with pytest.raises(TreeRefused, match="100 bytes"):
        read(sha, "big", limit=99)
    for name in (
        "",
        "d",
        "d/",
        "/seatrial.yml",
        "./seatrial.yml",
        "d/../seatrial.yml",
        "*",
        "b*",
        ":/big",
        "-x",
        "a\0b",
    ):
        assert read(sha, name) is None, name
    assert read(sha, "a\nb") is None


def test_a_tree_is_laid_out(world: World, tmp_path: Path) -> None:
    files = {"a": b"1", "d/e/f": b"2", "d/g": b"\xff\0"}
    sha = publish(world, "main", files)
    world.mirror.ensure(sha)
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        world.mirror.export(sha, tmp_path / name)
        assert contents(tmp_path / name) == files
    with pytest.raises(ValueError, match="not empty"):
        world.mirror.export(sha, tmp_path / "new")


def test_a_tree_above_its_limit_leaves_nothing(world: World, tmp_path: Path) -> None:
    sha = publish(world, "main", {f"d/{n}": b"" for n in range(8)})
    world.mirror.ensure(sha)
    with pytest.raises(TreeTooLarge, match="limit: files"):
        world.mirror.export(sha, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_not_fetched_cannot_be_read(world: World, tmp_path: Path) -> None:
    sha = publish(world, "main")
    for fetched in (False, True):
        if fetched:
            world.delete("refs/heads/main")
            publish(world, "other")
            world.mirror.resolve("other")
        with pytest.raises(RepositoryUnavailable):
            world.mirror.read_file(sha, "name")
        with pytest.raises(RepositoryUnavailable):
            world.mirror.export(sha, tmp_path / "out")


@pytest.mark.parametrize("sha", ["main", "", "-x", "f" * 39])
def test_short_names_are_a_misuse_where_commits_are_due(world: World, sha: str, tmp_path: Path) -> None:
    for use in (world.mirror.commit, world.mirror.ensure, lambda s: world.mirror.export(s, tmp_path / "x")):
        with pytest.raises(ValueError, match="not a full commit"):
            use(sha)


def test_many_at_once(world: World, tmp_path: Path) -> None:
    shas = [publish(world, f"topic/{n}", {"n": b"%d" % n}) for n in range(10)]

    def run(n: int) -> bool:
        sha = world.mirror.resolve(f"topic/{n % 10}").ref.sha
        world.mirror.export(sha, tmp_path / str(n))
        return sha == shas[n % 10] and contents(tmp_path / str(n)) == {"n": b"%d" % (n % 10)}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(40)))
