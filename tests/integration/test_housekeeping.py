"""A host parts with what it can have again, on a real engine, real mirrors and a real cache of trees."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_git import Repository
from hands import Hands
from sqlalchemy import text

import runner.room
from jobs.adapters.sql_store import Store
from jobs.housekeeping import Housekeeping
from jobs.keeping import DAY
from jobs.run import TaskState
from runner.adapters.docker_engine import DockerEngine
from runner.adapters.docker_images import BuiltImages
from runner.adapters.git_mirror import GitMirror
from runner.adapters.tree_cache import TreeCache
from runner.adapters.tree_eviction import standing_trees
from runner.errors import EngineUnavailable
from runner.model import Container, Prepared
from runner.room import Floor, Reserve, Spare


class Room:
    """A host that runs short for as long as somebody says so."""

    short: str | None = None
    free = 1 << 40

    def lacking(self, *, times: int = 1) -> str | None:
        return self.short

    def spare(self) -> Spare:
        home = runner.room.Room("home", "/srv", 1, free=self.free, total=1 << 40, inodes=0, inodes_total=0)
        return Spare(home, Floor(Reserve(), Reserve()))


class NoImages:
    """An engine that built nothing."""

    def built(self) -> dict[str, int]:
        return {}

    retired = built


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


@pytest.fixture
def hands(store: Store) -> Hands:
    return Hands(store)


@pytest.fixture
def room() -> Room:
    return Room()


def house(store: Store, room: Room, tmp_path: Path, images: Any = None, **more: Any) -> Housekeeping:
    mirrors = more.get("mirrors", {})
    return Housekeeping(
        store,
        room,  # type: ignore[arg-type]
        images or NoImages(),
        tmp_path / "trees",
        {name: path for name, (path, _) in mirrors.items()},
        lambda name: mirrors[name][1],
        host="h1",
    )


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# ---- images ------------------------------------------------------------------------------------------------


@pytest.fixture
def images() -> Iterator[BuiltImages]:
    images = BuiltImages()
    yield images
    images.close()


@pytest.fixture
def built(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[str]:
    """An image as a build of ours leaves it."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (context / "file").write_text(secrets.token_hex())
    name = f"seatrial/build:{secrets.token_hex(20)}"
    docker_engine.build(context, dockerfile="Dockerfile", tag=name, args={}, log=lambda _: None)
    yield name
    for left in (name, retired(name)):
        if docker_engine.image(left) is not None:
            docker_engine._api.remove_image(left)


def retired(name: str) -> str:
    return name.replace("/build:", "/retired:")


def ended(hands: Hands, image: str) -> int:
    """Do a run that used an image, and let it lie for two months."""
    run, claim = hands.preparing()
    hands.store.plan.prepared(
        claim.task.id, claim.task.attempt, Prepared(image, "sha256:1", ("a",), None), lambda names: [tuple(names)]
    )
    hands.finish(run)
    hands.clean(run)
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE runs SET finished_at = finished_at - {60 * DAY} WHERE id = {run}"))
    return run


def test_an_image_of_old_runs_is_retired_and_removed_when_nobody_can_mean_it_any_more(
    hands: Hands, room: Room, built: str, docker_engine: DockerEngine, images: BuiltImages, tmp_path: Path
) -> None:
    hands.worker()
    ended(hands, built)
    other = hands.submit()
    claim = hands.take()  # it may have found the image just before
    one = house(hands.store, room, tmp_path, images)
    assert [(done.what, done.name, done.why) for done in one.tidy()] == [("image", built, "retired: not used for 60d")]
    assert docker_engine.image(built) is None
    assert docker_engine.image(retired(built)) is not None
    assert list(one.tidy()) == []
    another = house(hands.store, room, tmp_path, images)  # a sweeper that was started anew
    assert list(another.tidy()) == []
    hands.end(claim, TaskState.CANCELLED)
    assert hands.run(other).state.final
    assert [done.name for done in one.tidy()] == [retired(built)]
    assert docker_engine.image(retired(built)) is None
    assert list(one.tidy()) == list(another.tidy()) == []


def test_an_image_of_a_living_run_and_one_of_nobodys_stay(
    hands: Hands, room: Room, built: str, docker_engine: DockerEngine, images: BuiltImages, tmp_path: Path
) -> None:
    hands.worker()
    room.short = "1 MiB free"
    assert list(house(hands.store, room, tmp_path, images).tidy()) == []
    ended(hands, built)
    _, claim = hands.preparing()
    hands.store.ledger.step(
        claim.task.id, claim.task.attempt, "image", state="done", seconds=0.1, detail=f"reused {built} 0123456789ab"
    )
    assert list(house(hands.store, room, tmp_path, images).tidy()) == []
    assert docker_engine.image(built) is not None


def test_a_retired_image_that_a_container_has_stays_until_it_is_gone(
    hands: Hands, room: Room, built: str, docker_engine: DockerEngine, images: BuiltImages, tmp_path: Path
) -> None:
    hands.worker()
    ended(hands, built)
    name = f"seatrial-test-{secrets.token_hex(4)}"
    docker_engine.create(
        Container(name=name, image=built, command=("/file",), labels={"installation": "test"}, user="65534:65534")
    )
    try:
        one = house(hands.store, room, tmp_path, images)
        assert [done.name for done in one.tidy()] == [built]
        assert list(one.tidy()) == []
    finally:
        docker_engine.remove(name)
    assert [done.name for done in one.tidy()] == [retired(built)]


def test_only_names_of_ours_can_be_removed(images: BuiltImages) -> None:
    with pytest.raises(ValueError, match="debian"):
        images.retire("debian:bookworm")
    with pytest.raises(ValueError, match="seatrial/build"):
        images.remove("seatrial/build:1")
    assert images.remove("seatrial/retired:no-such-image")
    images.retire("seatrial/build:no-such-image")


def test_an_engine_that_is_away_does_not_keep_trees_from_being_tended(hands: Hands, room: Room, tmp_path: Path) -> None:
    class Away(NoImages):
        def built(self) -> dict[str, int]:
            raise EngineUnavailable("The Docker engine does not answer.")

    remote = Repository(tmp_path / "remote.git")
    tree = TreeCache(tmp_path / "trees", lambda _: GitMirror(tmp_path / "mirror.git", str(remote.path))).get(
        "p", remote.branch("main", {"file": b"1"})
    )
    age(tree.with_name(f".{tree.name}.lock"), 40 * DAY)
    assert [done.what for done in house(hands.store, room, tmp_path, Away()).tidy()] == ["tree"]


# ---- trees -------------------------------------------------------------------------------------------------


def test_trees_that_nobody_used_go_and_those_of_living_runs_stay(hands: Hands, room: Room, tmp_path: Path) -> None:
    remote = Repository(tmp_path / "remote.git")
    mirror = GitMirror(tmp_path / "mirror.git", str(remote.path))
    cache = TreeCache(tmp_path / "trees", lambda _: mirror)
    shas = [remote.branch(f"b{n}", {"file": b"%d" % n}) for n in range(4)]
    trees = [cache.get("accounts", sha) for sha in shas]
    for tree, days in zip(trees, (50, 40, 20, 0), strict=True):
        age(tree.with_name(f".{tree.name}.lock"), days * DAY)
    run = hands.submit()
    with hands.store.database.write() as connection:
        connection.execute(text(f"UPDATE legs SET \"commit\" = '{shas[1]}' WHERE run = {run}"))
    one = house(hands.store, room, tmp_path)
    assert [(done.what, done.name) for done in one.tidy()] == [("tree", f"accounts/{shas[0]}")]
    room.short = "1 MiB free"
    assert list(one.tidy()) == []
    hands.store.runs.cancel(run, "mio")
    hands.clean(run)
    assert [done.name for done in one.tidy()] == [f"accounts/{shas[1]}", f"accounts/{shas[2]}"]
    assert list(standing_trees(tmp_path / "trees")) == [trees[3]]
    assert list(one.tidy()) == []


def test_no_more_goes_than_it_takes_to_have_room_again(hands: Hands, tmp_path: Path) -> None:
    remote = Repository(tmp_path / "remote.git")
    mirror = GitMirror(tmp_path / "mirror.git", str(remote.path))
    cache = TreeCache(tmp_path / "trees", lambda _: mirror)
    trees = [cache.get("p", remote.branch(f"b{n}", {"file": b"%d" % n})) for n in range(3)]
    for tree, days in zip(trees, (3, 2, 1), strict=True):
        age(tree.with_name(f".{tree.name}.lock"), days * DAY)

    class Filling(Room):
        def lacking(self, *, times: int = 1) -> str | None:
            return "1 MiB free" if len(standing_trees(tmp_path / "trees")) > 2 else None

    assert len(list(house(hands.store, Filling(), tmp_path).tidy())) == 1
    assert set(standing_trees(tmp_path / "trees")) == set(trees[1:])


# ---- mirrors -----------------------------------------------------------------------------------------------


def test_a_mirror_loses_what_killed_gits_left_and_what_nothing_holds(hands: Hands, room: Room, tmp_path: Path) -> None:
    remote = Repository(tmp_path / "remote.git")
    path = tmp_path / "mirrors" / "p.git"
    mirror = GitMirror(path, str(remote.path))
    kept = remote.branch("main", {"file": b"kept"})
    mirror.ensure(kept)
    gone = remote.branch("gone", {"file": b"gone" * 1_000})
    mirror._store.fetch(gone)  # fetched, and never pinned for a run
    remote.delete("refs/heads/gone")
    later = remote.branch("later", {"file": b"later"})
    mirror.ensure(later)
    old, young = path / "objects/pack/tmp_pack_old", path / "objects/pack/tmp_pack_young"
    for left in (old, young):
        left.write_bytes(b"x" * 5_000)
    age(old, 2 * DAY)
    for pack in path.glob("objects/pack/pack-*"):
        age(pack, 30 * DAY)
    one = house(hands.store, room, tmp_path, mirrors={"p": (path, mirror)})
    assert list(one.tidy()) == []  # it is new
    for stamp in ("tended", "repacked"):
        path.with_name(f".p.git.{stamp}").touch()
        age(path.with_name(f".p.git.{stamp}"), 8 * DAY)
    (done,) = one.tidy()
    assert (done.what, done.name) == ("mirror", "p")
    assert not old.exists()
    assert young.exists()
    again = GitMirror(path, str(remote.path))
    assert again._store.kind(gone) is None
    assert [again.commit(sha).sha for sha in (kept, later)] == [kept, later]
    assert list(one.tidy()) == []  # at most daily


class Mirror:
    """A mirror that notes how it is tended."""

    def __init__(self) -> None:
        self.repacked: list[bool] = []

    def tend(self, *, older_than: float, repack: bool) -> int:
        self.repacked.append(repack)
        return 0


@pytest.mark.parametrize(
    ("short", "days", "free", "repacked"),
    [
        (None, 2, 1 << 40, False),
        (None, 8, 1 << 40, True),
        ("1 MiB free", 2, 1 << 40, True),  # sooner, as it may give room
        ("1 MiB free", 8, 4_999, False),  # and not if its copy took the host below its floor
        (None, 8, 4_999, False),
    ],
)
def test_a_mirror_is_packed_anew_each_week_and_each_day_where_room_is_short(
    hands: Hands, room: Room, tmp_path: Path, short: str | None, days: int, free: int, repacked: bool
) -> None:
    path, mirror = tmp_path / "mirrors" / "p.git", Mirror()
    (path / "objects/pack").mkdir(parents=True)
    (path / "objects/pack/one.pack").write_bytes(b"x" * 5_000)
    for stamp in ("tended", "repacked"):
        path.with_name(f".p.git.{stamp}").touch()
        age(path.with_name(f".p.git.{stamp}"), days * DAY)
    room.short, room.free = short, free
    assert list(house(hands.store, room, tmp_path, mirrors={"p": (path, mirror)}).tidy()) == []
    assert mirror.repacked == [repacked]


def test_a_mirror_that_is_being_fetched_is_left_alone(hands: Hands, room: Room, tmp_path: Path) -> None:
    remote = Repository(tmp_path / "remote.git")
    path = tmp_path / "mirrors" / "p.git"
    mirror = GitMirror(path, str(remote.path))
    mirror.ensure(remote.branch("main", {"file": b"kept"}))
    left = path / "objects/pack/tmp_pack_old"
    left.write_bytes(b"x" * 5_000)
    age(left, 2 * DAY)
    with mirror._store._locked():
        assert GitMirror(path, str(remote.path)).tend(older_than=DAY, repack=True) == 0
    assert left.exists()
    assert GitMirror(path, str(remote.path)).tend(older_than=DAY, repack=False) == 5_000
