"""Several threads' writes in one transaction, where a transaction is what costs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection

from jobs.adapters.sql_engine import Database
from runner.errors import RequestError

T = TypeVar("T")
Wish = tuple[Callable[[Connection], Any], "Future[Any]"]


class Together:
    """Write what threads ask for at the same moment in one transaction.

    SQLite lets one process write at a time, so beside busy workers each transaction waits its turn: twenty submissions
    wait once together, not twenty times one after the other. PostgreSQL lets all write, and needs none of this.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._wishes: list[Wish] = []

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a write transaction and give its answer when that is committed; raises what `work` raises.

        What one raises is rolled back alone. Raises StoreUnavailable, then nothing was written.
        """
        if not self._db.is_sqlite:
            with self._db.write() as connection:
                return work(connection)
        answer: Future[T] = Future()
        with self._lock:
            self._wishes.append((work, answer))
        with self._lead:
            if not answer.done():
                self._fulfil()
        return answer.result()

    def _fulfil(self) -> None:
        """Do all that is wished for by the time that the transaction begins."""
        taken: list[Wish] = []
        try:
            with self._db.write() as connection:
                taken = self._take()
                outcomes = [_try(connection, work) for work, _ in taken]
        except BaseException as error:  # noqa: BLE001 - handed over to everyone who waits
            for _, answer in taken or self._take():
                answer.set_exception(error)
            return
        for (_, answer), (found, refused) in zip(taken, outcomes, strict=True):
            if refused is not None:
                answer.set_exception(refused)
            else:
                answer.set_result(found)

    def _take(self) -> list[Wish]:
        with self._lock:
            taken, self._wishes = self._wishes, []
        return taken


def _try(connection: Connection, work: Callable[[Connection], T]) -> tuple[T | None, RequestError | None]:
    """Do one part, which may be refused without harm to the others."""
    try:
        with connection.begin_nested():
            return work(connection), None
    except RequestError as error:
        return None, error
