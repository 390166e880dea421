"""What every adapter of the port Databases does, the in-memory twin as well as PostgreSQL."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from runner.adapters.postgres_clone import PostgresSource
from runner.adapters.postgres_memory import MemoryDatabases, MemoryServer
from runner.errors import BaseGone, DatabaseRefused, DatabaseUnavailable, Fenced, SnapshotGone, SourceInUse
from runner.model import Base, Origin, execution_database


@dataclass
class World:
    """A source and what a test does behind its back."""

    source: Any
    other_installation: Any
    mark: Callable[[str], None]
    occupy: Callable[[], Any]
    exists: Callable[[str], bool]
    role_exists: Callable[[str], bool]
    may_log_in: Callable[[str], bool]
    owner: str


def memory_world() -> World:
    server = MemoryServer()

    def mark(text: str) -> None:
        server.markers["verification"] = text.removeprefix("seatrial: ")

    def occupy() -> None:
        server.sessions["verification"] = ["pid 4711 user someone application psql state idle"]

    return World(
        MemoryDatabases("books", server, installation="one"),
        MemoryDatabases("books", server, installation="two"),
        mark,
        occupy,
        lambda name: name in server.databases,
        lambda name: name in server.roles,
        lambda name: name in server.roles and name not in server.shut,
        "app",
    )


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield memory_world()
        return
    sample = request.getfixturevalue("sample18")
    open_sessions = []

    def occupy() -> None:
        open_sessions.append(psycopg.connect(sample.server.dsn(sample.database), autocommit=True))

    yield World(
        PostgresSource("books", sample.dsn, installation="one"),
        PostgresSource("books", sample.dsn, installation="two"),
        lambda text: sample.execute(f"COMMENT ON DATABASE {sample.database} IS '{text}'"),
        occupy,
        lambda name: name in sample.databases(),
        lambda name: name in sample.roles(),
        lambda name: sample.value(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{name}'") is True,
        sample.owner,
    )
    for session in open_sessions:
        session.close()


def identities(bases: list[Base]) -> list[str]:
    """Name bases: their sizes change while nobody looks."""
    return [one.data_id for one in bases]


def fresh(kind: str = "x") -> str:
    """Give a name that no other test uses: they share a server."""
    return f"seatrial_{kind}_r{secrets.randbelow(10**9)}_candidate"


def test_a_source_without_marker_is_refused_with_the_command_to_run(world: World) -> None:
    with pytest.raises(DatabaseRefused, match="seatrial db bless books"):
        world.source.base()


def test_blessing_freezes_a_base_and_the_newest_one_counts(world: World) -> None:
    first = world.source.bless()
    assert world.source.base() == first
    assert first.source == "books"
    assert first.owner == world.owner
    assert first.blessed_at.tzinfo is not None
    second = world.source.bless()
    assert second.data_id != first.data_id
    assert world.source.base() == second
    assert identities(world.source.bases()) == identities([second, first])


def test_a_base_is_found_by_its_id_and_missed_when_it_is_gone(world: World) -> None:
    first = world.source.bless()
    second = world.source.bless()
    assert world.source.base(first.data_id) == first
    clone = fresh("leg")
    world.source.clone(first.database, clone)
    assert world.source.made_from(clone) == Origin(first.data_id, world.owner, first.name)
    world.source.forget(keep=1)
    assert world.source.base(second.data_id) == second
    with pytest.raises(BaseGone, match=f"{first.data_id}, and the source books has no such base any more"):
        world.source.base(first.data_id)
    assert world.source.made_from(clone) == Origin(first.data_id, world.owner, first.name)
    world.source.drop(clone)
    with pytest.raises(DatabaseRefused):
        world.source.made_from(clone)


def test_snapshots_have_names_and_are_found_by_them(world: World) -> None:
    with pytest.raises(DatabaseRefused, match="seatrial db bless books"):
        world.source.snapshot("early")
    first = world.source.bless()
    assert first.name == first.data_id
    named = world.source.snapshot("month-end_2026.11")
    last = world.source.snapshot()
    assert identities(world.source.bases()) == identities([last, named, first])
    assert world.source.base() == last
    assert world.source.base(snapshot="month-end_2026.11") == named
    assert world.source.base(snapshot=first.data_id) == first
    assert world.source.base(first.data_id, snapshot=named.name) == first, "the other leg's data come first"
    clone = fresh("leg")
    world.source.clone(named.database, clone)
    assert world.source.made_from(clone) == Origin(named.data_id, world.owner, named.name)
    world.source.drop(clone)
    for taken in (named.name, first.data_id):
        with pytest.raises(DatabaseRefused, match="already"):
            world.source.snapshot(taken)
    world.source.remove(named)
    assert identities(world.source.bases()) == identities([last, first])
    with pytest.raises(SnapshotGone, match=f"no snapshot {named.name}; the newest are: {last.name}"):
        world.source.base(snapshot=named.name)
    with pytest.raises(DatabaseRefused, match="no snapshot"):
        world.source.remove(named)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 64, "é", "a/b", "a\nb", "'"])
def test_what_cannot_be_a_snapshots_name_is_refused(name: str) -> None:
    world = memory_world()
    world.source.bless()
    with pytest.raises(DatabaseRefused, match="a name is a letter or digit"):
        world.source.snapshot(name)


def cut_off(world: World, during: Callable[[], object]) -> None:
    """Refresh the source, and fail on the way."""
    with world.source.refreshing():
        during()
        raise RuntimeError("the dump is cut off")


def test_snapshots_serve_while_the_source_is_refreshed_and_it_is_marked_at_the_end(world: World) -> None:
    old = world.source.bless()
    clone = fresh()
    with pytest.raises(RuntimeError, match="the dump is cut off"):
        cut_off(world, lambda: world.source.clone(old.database, clone))
    assert world.source.base() == old, "they serve on after a refresh that failed"
    world.source.clone(old.database, clone)
    with pytest.raises(DatabaseRefused, match="not marked"):
        world.source.snapshot()
    assert world.source.check().usable
    with world.source.refreshing() as refresh:
        new = refresh.finish("fresh")
    assert identities(world.source.bases()) == identities([new, old])
    assert world.source.base().name == "fresh"
    world.mark("something else")
    with pytest.raises(DatabaseRefused, match="not marked"):
        world.source.clone(old.database, clone)


def test_a_source_that_nobody_blessed_is_not_refreshed(world: World) -> None:
    with pytest.raises(DatabaseRefused, match="seatrial db bless books"):
        cut_off(world, list)


def test_production_is_never_refreshed_nor_used_although_a_refresh_failed(world: World) -> None:
    old = world.source.bless()
    with pytest.raises(RuntimeError):
        cut_off(world, list)
    world.mark("seatrial: production")
    for use in (world.source.base, lambda: world.source.clone(old.database, fresh())):
        with pytest.raises(DatabaseRefused, match="production"):
            use()
    with pytest.raises(DatabaseRefused, match="production"), world.source.refreshing():
        pass


def test_a_production_marker_refuses_blessing_and_use(world: World) -> None:
    world.mark("seatrial: production")
    with pytest.raises(DatabaseRefused, match="production"):
        world.source.bless()
    with pytest.raises(DatabaseRefused, match="production"):
        world.source.base()


def test_a_marker_changed_in_between_is_noticed_at_the_next_clone(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    world.mark("seatrial: production")
    with pytest.raises(DatabaseRefused, match="production"):
        world.source.clone(base.database, name)
    world.mark("")
    with pytest.raises(DatabaseRefused, match="seatrial db bless books"):
        world.source.clone(base.database, name)
    assert not world.exists(name)


def test_sessions_on_the_source_are_named_and_left_alone(world: World) -> None:
    session = world.occupy()
    with pytest.raises(SourceInUse, match=r"pid \d+ user"):
        world.source.bless()
    if session is not None:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_clone_of_a_base_replaces_one_of_the_same_name(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    made = world.source.clone(base.database, name)
    assert made.database == name
    assert made.method
    assert made.seconds >= 0
    assert world.source.clone(base.database, name).database == name
    world.source.drop(name)
    assert not world.exists(name)


@pytest.mark.parametrize(
    "name",
    [
        "verification",
        "postgres",
        "seatrial_base_books_1",
        "seatrial_x_",
        "seatrial_x_a;b",
        "Seatrial_x_a",
        "seatrial_x_" + "a" * 60,
    ],
)
def test_a_name_that_no_clone_of_ours_has_is_refused_everywhere(world: World, name: str) -> None:
    base = world.source.bless()
    for act in (
        lambda: world.source.clone(base.database, name),
        lambda: world.source.login(name, role=fresh(), owner=world.owner),
        lambda: world.source.login(fresh(), role=name, owner=world.owner),
        lambda: world.source.freeze(name),
        lambda: world.source.drop(name),
        lambda: world.source.drop(fresh(), role=name),
    ):
        with pytest.raises(DatabaseRefused):
            act()
    assert world.source.base() == base


def test_only_a_frozen_database_of_ours_is_a_template(world: World) -> None:
    base = world.source.bless()
    leg, execution = fresh("leg"), fresh()
    with pytest.raises(DatabaseRefused, match="gone; when the run has ended, resume it"):
        world.source.clone(leg, execution)
    world.source.clone(base.database, leg)
    with pytest.raises(DatabaseRefused, match="not frozen"):
        world.source.clone(leg, execution)
    world.source.freeze(leg)
    world.source.freeze(leg)
    assert world.source.clone(leg, execution).database == execution
    with pytest.raises(DatabaseRefused, match="frozen"):
        world.source.login(leg, role=fresh(), owner=world.owner)
    world.source.drop(execution)
    world.source.drop(leg)


def test_a_login_can_be_remade_and_shows_its_password_to_nobody(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    world.source.clone(base.database, name)
    first = world.source.login(name, role=name, owner=base.owner)
    second = world.source.login(name, role=name, owner=base.owner)
    assert (second.database, second.role) == (name, name)
    assert second.password != first.password
    assert len(second.password) >= 24
    assert second.password not in repr(second)
    assert world.role_exists(name)
    world.source.drop(name, role=name)
    assert not world.role_exists(name)


def test_a_login_needs_a_clone_and_an_owner(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    with pytest.raises(DatabaseRefused, match="no clone"):
        world.source.login(name, role=name, owner=base.owner)
    world.source.clone(base.database, name)
    with pytest.raises(DatabaseRefused, match="no role"):
        world.source.login(name, role=name, owner="nobody_of_that_name")
    world.source.drop(name)


def test_freezing_gives_up_the_login_of_the_preparation(world: World) -> None:
    base = world.source.bless()
    leg, role = fresh("leg"), fresh()
    world.source.clone(base.database, leg)
    world.source.login(leg, role=role, owner=base.owner)
    world.source.freeze(leg)
    assert not world.role_exists(role)
    world.source.drop(leg, role=role)


def test_a_role_that_is_shut_out_comes_in_no_more_until_it_is_made_again(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    world.source.shut(name)  # there is none yet
    world.source.clone(base.database, name)
    world.source.login(name, role=name, owner=base.owner)
    world.other_installation.shut(name)
    assert world.may_log_in(name)
    for _ in range(2):
        world.source.shut(name)
        assert world.role_exists(name)
        assert not world.may_log_in(name)
    world.source.login(name, role=name, owner=base.owner)
    assert world.may_log_in(name)
    world.source.drop(name, role=name)
    for foreign in ("postgres", base.database):
        with pytest.raises(DatabaseRefused):
            world.source.shut(foreign)


def test_a_clone_stands_with_its_role_until_either_is_dropped(world: World) -> None:
    base, name, role = world.source.bless(), fresh(), fresh()
    world.source.clone(base.database, name)
    assert not world.source.stands(name, role=role)
    world.source.login(name, role=role, owner=world.owner)
    assert world.source.stands(name, role=role)
    world.source.shut(role)
    assert not world.source.stands(name, role=role)
    world.source.login(name, role=role, owner=world.owner)
    world.source.drop(name)
    assert not world.source.stands(name, role=role)


def test_dropping_twice_is_safe(world: World) -> None:
    base = world.source.bless()
    name = fresh()
    world.source.clone(base.database, name)
    world.source.login(name, role=name, owner=base.owner)
    world.source.drop(name, role=name)
    world.source.drop(name, role=name)
    assert not world.exists(name)
    assert not world.role_exists(name)


def test_what_another_installation_made_is_not_touched(world: World) -> None:
    theirs = world.other_installation.bless()
    name = fresh()
    world.other_installation.clone(theirs.database, name)
    mine = world.source.bless()
    with pytest.raises(DatabaseRefused, match="another Seatrial"):
        world.source.clone(mine.database, name)
    with pytest.raises(DatabaseRefused, match="another Seatrial"):
        world.source.clone(theirs.database, fresh())
    with pytest.raises(DatabaseRefused, match="another Seatrial"):
        world.source.drop(name)
    with pytest.raises(DatabaseRefused, match="this Seatrial"):
        world.source.login(name, role=fresh(), owner=mine.owner)
    assert world.source.sweep(set) == []
    assert world.source.base() == mine
    assert world.exists(name)
    world.other_installation.drop(name)


def test_what_was_made_for_a_run_is_found_by_its_name(world: World) -> None:
    base = world.source.bless()
    run = secrets.randbelow(10**6)
    mine = [execution_database("one", run, 7, number) for number in (1, 2)]
    other = execution_database("one", run * 10 + 1, 7, 1)
    for name in (*mine, other):
        world.source.clone(base.database, name)
    world.source.login(mine[0], role=mine[0], owner=base.owner)
    assert world.source.made_for(run) == sorted(mine)
    for name in world.source.made_for(run):
        world.source.drop(name, role=name)
    assert world.source.made_for(run) == []
    assert world.exists(other)
    world.source.drop(other)


def test_the_sweep_drops_what_nobody_holds_and_spares_what_is_new(world: World) -> None:
    base = world.source.bless()
    held, lost, new = fresh(), fresh(), fresh()
    for name in (held, lost):
        world.source.clone(base.database, name)
        world.source.login(name, role=name, owner=base.owner)

    def wanted() -> set[str]:
        world.source.clone(base.database, new)  # recorded and made after this was read
        return {held}

    assert lost in world.source.sweep(wanted)
    assert world.exists(new)
    world.source.drop(new)
    assert world.exists(held)
    assert world.role_exists(held)
    assert not world.exists(lost)
    assert not world.role_exists(lost)
    assert world.source.base() == base
    world.source.drop(held, role=held)


def test_whom_the_fence_refuses_changes_nothing(world: World) -> None:
    base = world.source.bless()
    name, role, late = fresh("leg"), fresh(), fresh()
    world.source.clone(base.database, name)
    world.source.login(name, role=role, owner=world.owner)

    def refuse() -> None:
        raise Fenced

    for act in (
        lambda: world.source.clone(base.database, name, fence=refuse),
        lambda: world.source.login(name, role=late, owner=world.owner, fence=refuse),
        lambda: world.source.freeze(name, fence=refuse),
        lambda: world.source.drop(name, role=role, fence=refuse),
    ):
        with pytest.raises(Fenced):
            act()
    assert world.may_log_in(role)
    assert not world.role_exists(late)
    world.source.login(name, role=role, owner=world.owner)  # it stands, and is not frozen
    world.source.drop(name, role=role)


def test_old_bases_are_forgotten_but_the_newest_and_the_needed(world: World) -> None:
    oldest, second, third, newest = [world.source.bless() for _ in range(4)]
    assert world.source.forget(keep=2, needed={oldest.database}) == [second.database]
    assert identities(world.source.bases()) == identities([newest, third, oldest])
    assert world.source.forget(keep=1) == [third.database, oldest.database]
    with pytest.raises(DatabaseRefused):
        world.source.forget(keep=0)


def test_a_check_tells_what_is_missing(world: World) -> None:
    before = world.source.check()
    assert before.reachable
    assert not before.usable
    assert "seatrial db bless books" in str(before.problems[0])
    base = world.source.bless()
    after = world.source.check()
    assert after.usable
    assert (after.marker, after.owner, after.problems) == ("verification", world.owner, ())
    assert list(after.sizes) == [base.database]
    assert after.method
    world.mark("seatrial: production")
    assert not world.source.check().usable


def test_the_probe_sees_an_undisturbed_link(world: World) -> None:
    probe = world.source.probe()
    now = time.monotonic()
    assert not probe.lost_between(now, now + 0.2)
    probe.close()
    probe.close()


def test_the_memory_twin_tells_of_an_outage() -> None:
    world = memory_world()
    base = world.source.bless()
    probe = world.source.probe()
    start = time.monotonic()
    world.source.server.stop()
    for act in (world.source.base, world.source.bless, lambda: world.source.clone(base.database, fresh())):
        with pytest.raises(DatabaseUnavailable):
            act()
    world.source.server.start()
    assert world.source.base() == base
    assert probe.lost_between(start, time.monotonic())
    assert not probe.lost_between(start - 60, start - 30)
