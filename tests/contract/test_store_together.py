"""Writes of several threads in one transaction: fewer of them, each thread its own answer, no other's error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_together import Together
from runner.errors import Conflict, StoreUnavailable


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(open_engine(f"sqlite:///{tmp_path}/store.db"))
    with found.write() as connection:
        connection.execute(text("CREATE TABLE written (n INTEGER PRIMARY KEY)"))
    return found


def insert(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO written VALUES (:n)"), {"n": number})
        if number % 5 == 0:
            raise Conflict(f"not {number}")
        return number

    return work


def written(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(text("SELECT n FROM written ORDER BY n")))


def test_those_who_wait_together_are_written_together(database: Database) -> None:
    together = Together(database)
    commits: list[Connection] = []
    event.listen(database.engine, "commit", commits.append)
    inside, go = threading.Event(), threading.Event()

    def first(connection: Connection) -> int:
        inside.set()
        assert go.wait(30)
        return insert(1)(connection)

    with ThreadPoolExecutor(20) as pool:
        leader = pool.submit(together.write, first)
        assert inside.wait(30)
        others = [pool.submit(together.write, insert(number)) for number in (2, 3, 4, 6, 7, 8)]
        while len(together._wishes) < 6:  # until all of them wait
            time.sleep(0.01)
        go.set()
        assert [leader.result(), *(other.result() for other in others)] == [1, 2, 3, 4, 6, 7, 8]
    assert len(commits) == 2
    assert written(database) == [1, 2, 3, 4, 6, 7, 8]
    database.close()


def test_what_is_refused_is_refused_alone(database: Database) -> None:
    together = Together(database)

    def ask(number: int) -> object:
        try:
            return together.write(insert(number))
        except Conflict as error:
            return error.text

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(1, 101)))
    assert answers == [number if number % 5 else f"not {number}" for number in range(1, 101)]
    assert written(database) == [number for number in range(1, 101) if number % 5]
    database.close()


def test_a_store_that_is_away_refuses_all_who_wait(database: Database) -> None:
    together = Together(database)

    def away(connection: Connection) -> int:
        raise StoreUnavailable("The store does not answer: disk I/O error")

    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(together.write, away) for _ in range(8)]
        assert all(isinstance(one.exception(), StoreUnavailable) for one in refused)
    assert together.write(insert(1)) == 1
    database.close()
