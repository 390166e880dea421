"""Two who make or drop the same database: one waits for the other, but not for one that is gone, nor for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fixtures_postgres import Sample

from runner.adapters import postgres_copy
from runner.adapters.postgres_base import server_time
from runner.adapters.postgres_clone import PostgresSource
from runner.adapters.postgres_link import Connection, Server, execute, name, value
from runner.adapters.postgres_rights import roles_of
from runner.errors import DatabaseUnavailable

NAME = "seatrial_leg_r1_candidate"
ROLE = "seatrial_x_r1_t1_e1"
TRY = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
LOCK = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def unhindered(action: Callable[[], Any]) -> Any:
    """Do it, and fail instead of waiting for ever."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(action).result(60)
    finally:
        pool.shutdown(wait=False)


def test_a_name_that_somebody_holds_for_long_is_an_outage(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PostgresSource("v", sample.dsn, installation="lock")
    base = source.bless()
    monkeypatch.setattr(postgres_copy, "LOCK_MILLISECONDS", 200)
    with sample.admin("postgres") as other:
        other.execute(LOCK.encode(), (f"seatrial {NAME}",))
        for act in (lambda: source.drop(NAME), lambda: source.clone(base.database, NAME)):
            with pytest.raises(DatabaseUnavailable, match="another session's hands"):
                unhindered(act)
        other.execute(b"SELECT pg_advisory_unlock_all()")
        source.clone(base.database, NAME)
    source.drop(NAME)
    assert NAME not in sample.databases()


def test_who_is_gone_in_the_middle_of_a_statement_holds_the_name_no_longer(sample: Sample) -> None:
    source = PostgresSource("v", sample.dsn, installation="lock")
    with Server("v", sample.dsn).session() as link, postgres_copy.locked(link, NAME):
        link.pgconn.send_query(b"SELECT pg_sleep(600)")
        link.pgconn.flush()
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), link.pgconn.socket)  # it ends without a word
        link.close()
        unhindered(lambda: source.drop(NAME))


def test_the_server_is_asked_to_notice_a_dead_link(sample: Sample) -> None:
    with Server("v", sample.dsn).session() as link:
        asked = (b"SHOW tcp_keepalives_idle", b"SHOW tcp_keepalives_count", b"SHOW tcp_user_timeout")
        assert [link.execute(each).fetchone() for each in asked] == [("5",), ("3",), ("15000",)]


def test_the_fence_is_asked_while_nobody_else_can_touch_the_database(sample: Sample) -> None:
    source = PostgresSource("v", sample.dsn, installation="lock")
    base = source.bless()
    free: list[object] = []

    def fence() -> None:
        with sample.admin("postgres") as other:
            free.append(other.execute(TRY.encode(), (f"seatrial {NAME}",)).fetchone())

    source.clone(base.database, NAME, fence=fence)
    source.login(NAME, role=ROLE, owner=sample.owner, fence=fence)
    source.freeze(NAME, fence=fence)
    source.drop(NAME, fence=fence)
    assert free == [(False,)] * 4


def wait_for_waiting(link: Connection) -> None:
    """Wait until somebody waits for the lock of a name."""
    until = time.monotonic() + 60
    while not value(link, WAITING):
        assert time.monotonic() < until, "nobody asks for the lock before the drop"
        time.sleep(0.02)


def test_a_sweep_spares_a_clone_that_was_made_anew_before_it_could_drop_it(sample: Sample) -> None:
    source = PostgresSource("v", sample.dsn, installation="lock")
    base = source.bless()
    source.clone(base.database, NAME)
    with Server("v", sample.dsn).session() as link, ThreadPoolExecutor(1) as pool:
        with postgres_copy.locked(link, NAME):
            sweep = pool.submit(source.sweep, set)
            wait_for_waiting(link)
            label = postgres_copy.label_of(link, NAME)
            assert label is not None
            made_at = server_time(link).isoformat()
            postgres_copy.copy(link, base.database, NAME, label.of("clone", NAME, made_at))
        assert sweep.result(60) == []
    assert NAME in sample.databases()
    assert source.sweep(set) == [NAME]


def test_a_sweep_spares_a_role_that_was_made_anew_before_it_could_drop_it(sample: Sample) -> None:
    source = PostgresSource("v", sample.dsn, installation="lock")
    source.clone(source.bless().database, NAME)
    source.login(NAME, role=ROLE, owner=sample.owner)
    with Server("v", sample.dsn).session() as link, ThreadPoolExecutor(1) as pool:
        execute(link, "DROP DATABASE {} WITH (FORCE)", name(NAME))
        with postgres_copy.locked(link, NAME):
            sweep = pool.submit(source.sweep, set)
            wait_for_waiting(link)
            label = roles_of(link, "lock")[ROLE]
            postgres_copy.describe(link, "ROLE", ROLE, label.of("role", NAME, server_time(link).isoformat()))
        assert sweep.result(60) == []
    assert ROLE in sample.roles()
    assert source.sweep(set) == [ROLE]


def test_a_name_that_somebody_holds_for_long_keeps_no_other_from_being_swept(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_copy, "LOCK_MILLISECONDS", 200)
    source = PostgresSource("v", sample.dsn, installation="lock")
    base = source.bless()
    later = f"{NAME}_later"
    for clone in (NAME, later):
        source.clone(base.database, clone)
    with Server("v", sample.dsn).session() as link, postgres_copy.locked(link, NAME):
        assert source.sweep(set) == [later]
        with pytest.raises(DatabaseUnavailable, match=NAME):
            source.sweep(set)
    assert source.sweep(set) == [NAME]
