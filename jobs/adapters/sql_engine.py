"""Open the store: SQLite in WAL mode or PostgreSQL, with transactions that lose no update."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, Table, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import StaticPool

from runner.errors import StoreUnavailable

WRITE_LOCK_SECONDS = 30.0
JOURNAL_PAGES = 16_384  # 64 MiB: some 200 runs

# A link that went dead without a word is noticed within a dozen seconds; what the URL says of these goes first.
POSTGRES_LINK = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "seatrial",
    "target_session_attrs": "read-write",  # after a failover the old name may lead to the demoted server for a while
}
# And so does the server: a host that lost its power, or a process that was stopped, in the middle of a transaction would
# keep its locks for hours, and everybody would wait for them. Said after connecting: a pooler refuses options at the start.
POSTGRES_SESSION = {
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": f"{WRITE_LOCK_SECONDS:.0f}s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
READ_ONLY = "25006"  # read_only_sql_transaction


def open_engine(url: str) -> Engine:
    """Open `sqlite:///…` or `postgresql://…` (psycopg 3)."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url, parsed.database)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    link = {key: value for key, value in POSTGRES_LINK.items() if key not in parsed.query}
    engine = create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=50, connect_args=link)
    event.listen(engine, "connect", _limit_session)
    event.listen(engine, "handle_error", _part_with_a_demoted_server)
    return engine


def _limit_session(connection: Any, _record: object) -> None:
    """Let the server end what this session leaves undone."""
    connection.autocommit = True
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in POSTGRES_SESSION.items())
    connection.execute(f"SELECT {settings}")
    connection.autocommit = False


def _part_with_a_demoted_server(context: ExceptionContext) -> None:
    """Treat a link to a server that takes no writes any more as a dead one, and those that were made before it too."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _open_sqlite(url: str, database: str | None) -> Engine:
    if database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        assert database is not None
        Path(database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, pool_size=20, max_overflow=400, connect_args={"timeout": WRITE_LOCK_SECONDS})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own idea of transactions starts them late; ours are explicit (see write()).
        connection.isolation_level = None
        # SQLite's own knows ASCII only; PostgreSQL's knows all letters.
        connection.create_function("lower", 1, _lower, deterministic=True)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={WRITE_LOCK_SECONDS * 1000:.0f}")
        _patiently(lambda: cursor.execute("PRAGMA journal_mode=WAL"))
        # WAL with NORMAL survives every kill of a process; a power cut may take the last moments, never the rest.
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA cache_size=-16000")
        # Whoever passes the mark syncs files in the middle of its work; the sweeper is to be there first (write_back).
        cursor.execute(f"PRAGMA wal_autocheckpoint={JOURNAL_PAGES}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        if not connection.get_execution_options().get("seatrial_write"):
            raw.execute("BEGIN DEFERRED")
            return
        # SQLAlchemy's default deferred transactions lost 333 of 1,000 counted updates; IMMEDIATE loses none.
        # SQLite's own waiting looks ever more seldom, up to ten times a second, and starves beside a busy writer.
        raw.execute("PRAGMA busy_timeout=0")
        try:
            _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))
        finally:
            raw.execute(f"PRAGMA busy_timeout={WRITE_LOCK_SECONDS * 1000:.0f}")

    return engine


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _patiently(action: Any) -> None:
    """Do it when the lock is free; SQLite answers some requests for it with "locked" at once."""
    deadline = time.monotonic() + WRITE_LOCK_SECONDS
    while True:
        try:
            action()
        except sqlite3.OperationalError as error:
            busy = (error.sqlite_errorcode or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(random.uniform(0.001, 0.005))  # noqa: S311 - only spreads the waiters
        else:
            return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
        if not _is_away(error):
            raise
        cause = getattr(error, "orig", None) or error
        first = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise StoreUnavailable(f"The store does not answer: {first}") from error


def _is_away(error: Exception) -> bool:
    """Tell an outage from a statement that is wrong."""
    if isinstance(error, PoolTimeout):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        # SQLITE_ERROR is a statement that is wrong (no such column, BEGIN within BEGIN).
        code = getattr(cause, "sqlite_errorcode", None)
        return isinstance(cause, sqlite3.OperationalError) and code not in (None, sqlite3.SQLITE_ERROR)
    return isinstance(error, (OperationalError, InterfaceError)) or bool(getattr(error, "connection_invalidated", 0))


class Database:
    """Read and write transactions on the store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._pulse: Connection | None = None
        # A database in memory is one connection, which all threads of a test share.
        self._in_memory = isinstance(engine.pool, StaticPool)
        self._turn: AbstractContextManager[Any] = threading.RLock() if self._in_memory else nullcontext()
        # Threads of one process take turns among themselves: looking at the file's lock again and again costs them more.
        self._write_turn = threading.Lock() if self.is_sqlite and not self._in_memory else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a consistent view; raises StoreUnavailable."""
        with self._turn, _translated(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def write_back(self) -> None:
        """Copy what SQLite's journal holds into its database, where nobody waits for that; raises StoreUnavailable."""
        if self.is_sqlite and not self._in_memory:
            with _translated(), closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a write transaction: committed at the end, rolled back on any error; raises StoreUnavailable.

        With PostgreSQL rows are locked in one order: tasks first, then their host's machine, then their run, then events are
        appended.
        """
        with self._turn, self._queued(), _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(seatrial_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _queued(self) -> Iterator[None]:
        if self._write_turn is None:
            yield
            return
        if not self._write_turn.acquire(timeout=WRITE_LOCK_SECONDS):
            raise StoreUnavailable(f"The store does not answer: no turn to write within {WRITE_LOCK_SECONDS:.0f} s")
        try:
            yield
        finally:
            self._write_turn.release()

    def now(self, connection: Connection) -> float:
        """Give the store's clock; with SQLite that is the client's."""
        if self.is_sqlite:
            return time.time()
        value: Any = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        return float(value)

    def alone(self, connection: Connection, name: str) -> None:
        """Let the transactions that name the same thing go one after the other."""
        if not self.is_sqlite:  # where they do so anyway
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def learn(self, table: Table) -> None:
        """Let PostgreSQL's planner know that a table has grown: it would read all units of a run for each mark."""
        if not self.is_sqlite:
            with self.write() as connection:
                connection.execute(text(f"ANALYZE {table.name}"))

    def pulse(self) -> int:
        """Give a number that changes whenever somebody committed something; ask from one thread only."""
        try:
            with self._turn, _translated():
                return self._ask_pulse()
        except StoreUnavailable:
            self._forget_pulse()
            raise

    def _ask_pulse(self) -> int:
        if self._pulse is None:
            self._pulse = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not self.is_sqlite:
            value: Any = self._pulse.exec_driver_sql(
                "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
            ).scalar_one()
            return int(value)
        raw: Any = self._pulse.connection.driver_connection
        if self._in_memory:
            return int(raw.total_changes)
        # Counts other connections' commits, as seen by this one: hence a connection kept for it.
        return int(raw.execute("PRAGMA data_version").fetchone()[0])

    def _forget_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.invalidate()
            self._pulse.close()
            self._pulse = None

    def close(self) -> None:
        """Close all connections."""
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None
        self.engine.dispose()
