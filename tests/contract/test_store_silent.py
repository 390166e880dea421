"""Whoever goes silent in the middle of a transaction, with PostgreSQL, whose server would keep his locks for hours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

import psycopg
import pytest
from fixtures_store import make_hands
from hands import Hands
from sqlalchemy import select, text

from jobs.adapters import sql_engine
from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_schema import runs
from jobs.adapters.sql_store import Store
from jobs.run import RunState, TaskState
from runner.errors import StoreUnavailable

T = TypeVar("T")


@pytest.fixture
def hands(postgres_store: Store, request: pytest.FixtureRequest) -> Iterator[Hands]:
    yield from make_hands(request, "postgres")


@contextmanager
def silent(url: str, *statements: str) -> Iterator[None]:
    """Hold locks in a transaction in which nothing happens any more."""
    with closing(psycopg.connect(url)) as link:
        for statement in statements:
            link.execute(statement.encode())
        yield
        link.rollback()  # the server needs a moment to hear of a link that is closed


def unhindered(action: Callable[[], T]) -> T:
    """Do it, and fail instead of waiting for ever."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(action).result(30)
    finally:
        pool.shutdown(wait=False)


@pytest.mark.parametrize("locked", ["tasks WHERE id = {task}", "runs WHERE id = {run}"])
def test_a_lease_expires_while_another_tasks_holder_is_silent(
    hands: Hands, postgres_store_url: str, locked: str
) -> None:
    stuck_run, stuck = hands.preparing()
    run, claim = hands.preparing()
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE tasks SET lease_until = 0"))
    lock = f"SELECT 1 FROM {locked} FOR UPDATE".format(task=stuck.task.id, run=stuck_run)
    expire = hands.store.tasks.expire
    with silent(postgres_store_url, lock):
        assert not unhindered(lambda: expire(stuck.task.id, 1, 0)), "it is being written"
        assert unhindered(lambda: expire(claim.task.id, 1, 0))
    assert hands.tasks(run)[0].state is TaskState.INTERRUPTED
    assert expire(stuck.task.id, 1, 0), "a pass later"


@pytest.mark.parametrize("locked", ["tasks WHERE id = {task}", "runs WHERE id = {run}"])
def test_what_is_due_is_queued_and_rung_for_while_another_is_locked(
    hands: Hands, postgres_store_url: str, locked: str
) -> None:
    stuck_run, stuck = hands.preparing()
    _, claim = hands.preparing()
    hands.interrupt(stuck)
    hands.interrupt(claim)
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE tasks SET due_at = 0"))
    lock = f"SELECT 1 FROM {locked} FOR UPDATE".format(task=stuck.task.id, run=stuck_run)
    with silent(postgres_store_url, lock):
        assert unhindered(hands.store.tasks.requeue_due) == [claim.task.id]
    assert hands.store.tasks.requeue_due() == [stuck.task.id]
    for name in ("w1", "w2"):
        hands.worker(name)
        hands.store.workers.seen(name, idle=True)
    with silent(postgres_store_url, f"SELECT 1 FROM tasks WHERE id = {stuck.task.id} FOR UPDATE"):
        assert unhindered(lambda: hands.store.tasks.to_ring(every=60)) == [(claim.task.id, "local")]
    assert hands.store.tasks.to_ring(every=60) == [(stuck.task.id, "local")]


def test_a_task_that_was_locked_when_its_run_was_cancelled_ends_without_any_worker(
    hands: Hands, postgres_store_url: str
) -> None:
    run = hands.submit()
    task = hands.tasks(run)[0].id
    with silent(postgres_store_url, f"SELECT 1 FROM tasks WHERE id = {task} FOR UPDATE"):
        unhindered(lambda: hands.store.runs.cancel(run, "mio"))
    assert hands.tasks(run)[0].state is TaskState.QUEUED
    assert hands.store.tasks.requeue_due() == []
    assert hands.run(run).state is RunState.CANCELLED


def test_the_server_ends_a_transaction_that_stands_still(
    hands: Hands, postgres_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hands.submit()
    lock = select(runs.c.id).where(runs.c.id == run).with_for_update()
    monkeypatch.setitem(sql_engine.POSTGRES_SESSION, "idle_in_transaction_session_timeout", "200ms")
    with closing(Database(open_engine(postgres_store_url))) as hung:

        def stand_still() -> None:
            with hung.write() as connection:
                connection.execute(lock)
                with hands.store.database.write() as other:
                    assert unhindered(lambda: other.execute(lock).scalar_one()) == run, "its lock is free again"
                connection.execute(lock)

        with pytest.raises(StoreUnavailable):
            stand_still()
        with hung.read() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1, "by a new link"


def test_who_waits_for_a_lock_that_is_not_freed_hears_of_an_outage(
    hands: Hands, postgres_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hands.submit()
    monkeypatch.setitem(sql_engine.POSTGRES_SESSION, "lock_timeout", "200ms")
    with (
        silent(postgres_store_url, f"SELECT 1 FROM runs WHERE id = {run} FOR UPDATE"),
        closing(Database(open_engine(postgres_store_url))) as waiting,
        pytest.raises(StoreUnavailable, match="lock timeout"),
        waiting.write() as connection,
    ):
        unhindered(lambda: connection.execute(select(runs.c.id).where(runs.c.id == run).with_for_update()))


def test_every_session_has_the_limits(hands: Hands) -> None:
    with hands.store.database.read() as connection:
        found = {name: connection.execute(text(f"SHOW {name}")).scalar_one() for name in sql_engine.POSTGRES_SESSION}
    # What a link of TCP has is not shown where it is a socket in a directory.
    assert (found["idle_in_transaction_session_timeout"], found["lock_timeout"]) == ("10s", "30s")
