"""Open the store: SQLite in WAL mode or PostgreSQL, with transactions that lose no update."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from runner.errors import StoreUnavailable


def open_engine(url: str) -> Engine:
    """Open `sqlite:///…` or `postgresql://…` (psycopg 3)."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url, parsed.database)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=50)


def _open_sqlite(url: str, database: str | None) -> Engine:
    if database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        assert database is not None
        Path(database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, pool_size=20, max_overflow=400, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own idea of transactions starts them late; ours are explicit (see write()).
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # WAL with NORMAL survives every kill of a process; a power cut may take the last moments, never the rest.
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA cache_size=-16000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # SQLAlchemy's default deferred transactions lost 333 of 1,000 counted updates; IMMEDIATE loses none.
        mode = "IMMEDIATE" if connection.get_execution_options().get("seatrial_write") else "DEFERRED"
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailable(f"The store does not answer: {str(error.orig).splitlines()[0]}") from error


class Database:
    """Read and write transactions on the store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._pulse: Connection | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a consistent view."""
        with _translated(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a write transaction: committed at the end, rolled back on any error."""
        with _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(seatrial_write=True)
            with connection.begin():
                yield connection

    def now(self, connection: Connection) -> float:
        """Give the store's clock; with SQLite that is the client's."""
        if self.is_sqlite:
            return time.time()
        value: Any = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        return float(value)

    def pulse(self) -> int:
        """Give a number that changes whenever somebody committed something; ask from one thread only."""
        if self._pulse is None:
            self._pulse = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        raw = self._pulse.connection.driver_connection
        assert raw is not None
        if self.is_sqlite:
            # Counts other connections' commits, as seen by this one: hence a connection kept for it.
            return int(raw.execute("PRAGMA data_version").fetchone()[0])
        row = raw.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close all connections."""
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None
        self.engine.dispose()
