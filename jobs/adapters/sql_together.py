"""Several threads' writes in one transaction, where a transaction is what costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from sqlalchemy import Connection

from jobs.adapters.sql_engine import Database
from runner.errors import RequestError

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")


class Together(Generic[Wish, Answer]):
    """Write what threads wish for at the same moment in one transaction, by the same few statements.

    SQLite lets one process write at a time, so beside busy workers each transaction waits its turn: twenty submissions
    wait once together, not twenty times one after the other. PostgreSQL lets all write, and needs none of this.
    """

    def __init__(
        self, database: Database, work: Callable[[Connection, Sequence[Wish]], Sequence[Answer | RequestError]]
    ) -> None:
        """`work` writes some wishes and gives the answer of each; what it refuses it must not have written."""
        self._db = database
        self._work = work
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._waiting: list[tuple[Wish, Future[Answer | RequestError]]] = []

    def write(self, wish: Wish) -> Answer:
        """Give the answer when it is committed; raises the RequestError that `work` answered with.

        Whatever `work` raises is raised to all who waited together, and nothing of theirs was written.
        """
        if not self._db.is_sqlite:
            with self._db.write() as connection:
                [found] = self._work(connection, [wish])
            return _given(found)
        answer: Future[Answer | RequestError] = Future()
        with self._lock:
            self._waiting.append((wish, answer))
        with self._lead:
            if not answer.done():
                self._fulfil()
        return _given(answer.result())

    def _fulfil(self) -> None:
        """Do all that is wished for by the time that the transaction begins."""
        taken: list[tuple[Wish, Future[Answer | RequestError]]] = []
        try:
            with self._db.write() as connection:
                taken = self._take()
                found = self._work(connection, [wish for wish, _ in taken])
        except BaseException as error:  # noqa: BLE001 - handed over to everyone who waits
            for _, answer in taken or self._take():
                answer.set_exception(error)
            return
        for (_, answer), one in zip(taken, found, strict=True):
            answer.set_result(one)

    def _take(self) -> list[tuple[Wish, Future[Answer | RequestError]]]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken


def _given(found: Answer | RequestError) -> Answer:
    if isinstance(found, RequestError):
        raise found
    return found
