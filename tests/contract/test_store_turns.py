"""Writers of one process take turns; one whose turn does not come is told so, and loses nothing of the others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.adapters import sql_engine
from jobs.adapters.sql_engine import Database, open_engine
from runner.errors import StoreUnavailable


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(open_engine(f"sqlite:///{tmp_path}/store.db"))
    with found.write() as connection:
        connection.execute(text("CREATE TABLE counted (n INTEGER)"))
        connection.execute(text("INSERT INTO counted VALUES (0)"))
    return found


def test_threads_that_write_at_once_lose_nothing(database: Database) -> None:
    def add() -> None:
        for _ in range(25):
            with database.write() as connection:
                n = connection.execute(text("SELECT n FROM counted")).scalar_one()
                connection.execute(text("UPDATE counted SET n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=add) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM counted")).scalar_one() == 16 * 25
    database.close()


def test_a_turn_that_does_not_come_is_an_outage(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_engine, "WRITE_LOCK_SECONDS", 0.05)
    refused: list[str] = []

    def wait() -> None:
        try:
            with database.write():
                pass
        except StoreUnavailable as error:
            refused.append(error.text)

    with database.write() as connection:
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join()
        connection.execute(text("UPDATE counted SET n = 7"))
    assert "no turn to write" in refused[0]
    with database.write() as connection:  # the turn was given back
        assert connection.execute(text("SELECT n FROM counted")).scalar_one() == 7
    database.close()
