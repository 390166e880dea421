"""The watch on the link to a server: a session of our own that asks twice a second whether it still stands."""

from __future__ import annotations

import select
import threading
import time

import psycopg

from runner.adapters.postgres_link import Connection, Server
from runner.ports import PROBE_SLACK

EVERY = 0.5
ANSWER = 1.5


class PostgresProbe:
    """Watches from a thread of its own until it is closed; intervals are in `time.monotonic()` seconds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Condition()
        self._lost: list[tuple[float, float | None]] = []
        self._looked = 0.0
        self._wanted = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name=f"probe-{server.source}", daemon=True)
        self._thread.start()

    def lost_between(self, start: float, end: float) -> bool:
        """Tell whether the link was down at some time from `start` to `end` (± 2 s).

        Waits until it has looked once after `end`, which takes `ANSWER` seconds at most.
        """
        with self._lock:
            self._wanted = max(self._wanted, end)
            self._lock.notify_all()
            self._lock.wait_for(
                lambda: self._closed or self._looked >= end,
                timeout=max(0.0, end - time.monotonic()) + EVERY + 2 * ANSWER + 2.0,
            )
            return any(
                began <= end + PROBE_SLACK and (ended is None or ended >= start - PROBE_SLACK)
                for began, ended in self._lost
            )

    def close(self) -> None:
        """End the watch; safe to call twice."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._thread.join(timeout=10.0)

    # ---- the thread ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        connection: Connection | None = None
        good = time.monotonic()
        while not self._closed:
            began = time.monotonic()
            was_up = connection is not None
            connection = self._look(connection)
            now = time.monotonic()
            with self._lock:
                down = bool(self._lost) and self._lost[-1][1] is None
                if connection is None and not down:
                    self._lost.append((good, None))
                elif connection is not None:
                    if down:
                        self._lost[-1] = (self._lost[-1][0], now)
                    good = began
                del was_up
                self._looked = began
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._closed or self._wanted > self._looked, timeout=EVERY)
        if connection is not None:
            connection.close()

    def _look(self, connection: Connection | None) -> Connection | None:
        """Ask once, over the session that there is or a new one; None when the link is down."""
        try:
            if connection is None:
                connection = psycopg.connect(self._server.conninfo(connect_timeout="2"), autocommit=True)
            _ask(connection)
        except psycopg.Error:
            if connection is not None:
                connection.close()
            return None
        return connection


def _ask(connection: Connection) -> None:
    """Run an empty query within ANSWER seconds; the driver's own calls would wait as long as TCP does."""
    link = connection.pgconn
    link.send_query(b"SELECT 1")
    deadline = time.monotonic() + ANSWER
    while True:
        link.flush()
        while not link.is_busy():
            result = link.get_result()
            if result is None:
                return
            if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
                raise psycopg.OperationalError("the server ended the session")
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([link.socket], [], [], left)[0]:
            raise psycopg.OperationalError("no answer in time")
        link.consume_input()
