"""Writes of several threads in one transaction: fewer of them, each thread its own answer, no other's error."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_together import Together
from runner.errors import Conflict, RequestError, StoreUnavailable


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(open_engine(f"sqlite:///{tmp_path}/store.db"))
    with found.write() as connection:
        connection.execute(text("CREATE TABLE written (n INTEGER PRIMARY KEY)"))
    return found


def insert(connection: Connection, numbers: Sequence[int]) -> list[int | RequestError]:
    kept = [number for number in numbers if number % 5]
    if kept:
        connection.execute(text("INSERT INTO written VALUES (:n)"), [{"n": number} for number in kept])
    return [number if number % 5 else Conflict(f"not {number}") for number in numbers]


def written(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(text("SELECT n FROM written ORDER BY n")))


def test_those_who_wait_together_are_written_together(database: Database) -> None:
    inside, go = threading.Event(), threading.Event()

    def slowly(connection: Connection, numbers: Sequence[int]) -> list[int | RequestError]:
        inside.set()
        assert go.wait(30)
        return insert(connection, numbers)

    together = Together(database, slowly)
    commits: list[Connection] = []
    event.listen(database.engine, "commit", commits.append)
    with ThreadPoolExecutor(20) as pool:
        leader = pool.submit(together.write, 1)
        assert inside.wait(30)
        others = [pool.submit(together.write, number) for number in (2, 3, 4, 6, 7, 8)]
        while len(together._waiting) < 6:  # until all of them wait
            time.sleep(0.01)
        go.set()
        assert [leader.result(), *(other.result() for other in others)] == [1, 2, 3, 4, 6, 7, 8]
    assert len(commits) == 2
    assert written(database) == [1, 2, 3, 4, 6, 7, 8]
    database.close()


def test_what_is_refused_is_refused_alone(database: Database) -> None:
    together = Together(database, insert)

    def ask(number: int) -> object:
        try:
            return together.write(number)
        except Conflict as error:
            return error.text

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(1, 101)))
    assert answers == [number if number % 5 else f"not {number}" for number in range(1, 101)]
    assert written(database) == [number for number in range(1, 101) if number % 5]
    database.close()


def test_a_store_that_is_away_refuses_all_who_wait(database: Database) -> None:
    def away(connection: Connection, numbers: Sequence[int]) -> list[int | RequestError]:
        raise StoreUnavailable("The store does not answer: disk I/O error")

    together = Together(database, away)
    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(together.write, number) for number in range(8)]
        assert all(isinstance(one.exception(), StoreUnavailable) for one in refused)
    database.close()
