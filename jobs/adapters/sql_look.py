"""Look at the store for `seatrial doctor`: its tables' revision and, for SQLite, whether it is whole. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_heartbeats import SqlHeartbeats
from jobs.adapters.sql_store import MIGRATIONS
from jobs.doctor import StoreFacts
from jobs.heartbeats import Signs
from runner.errors import StoreUnavailable


def look(url: str) -> StoreFacts:
    """Ask the store what it is; never raises for what it answers."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return StoreFacts("server.database_url", error="is not the URL of a database")
    if parsed.get_backend_name() == "sqlite":
        return _look_sqlite(Path(parsed.database or ""))
    return _look_server(parsed)


def known_revisions() -> tuple[str, ...]:
    """List the revisions of our migrations, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return tuple(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())[::-1]


def _look_sqlite(file: Path) -> StoreFacts:
    kind, known = f"SQLite {file}", known_revisions()
    if not file.exists():
        above = next(parent for parent in file.absolute().parents if parent.exists())
        writable = above.is_dir() and os.access(above, os.W_OK)
        error = "" if writable else f"cannot be made: {above} is no directory that this user can write to"
        return StoreFacts(str(file), kind, known=known, error=error)
    try:
        # Read-write when that is allowed: a store in WAL mode whose last process died is read by recovering it.
        mode = "rw" if os.access(file, os.W_OK) else "ro"
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)
        try:
            answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
            tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master")}
            row = None
            if "alembic_version" in tables:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "unable to open" in str(error):
            return StoreFacts(str(file), kind, known=known, error=str(error))
        return StoreFacts(str(file), kind, known=known, damage=(str(error),))
    damage = () if answers == ["ok"] else tuple(answers)
    if mode == "ro":
        return StoreFacts(str(file), kind, known=known, error="is not writable for this user")
    return StoreFacts(str(file), kind, None if row is None else str(row[0]), known, damage)


def _look_server(url: URL) -> StoreFacts:
    shown = url.render_as_string(hide_password=True)
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": "5"})
    engine = open_engine(url.render_as_string(hide_password=False))
    try:
        with engine.connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            revision = None
            if inspect(connection).has_table("alembic_version"):
                revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        return StoreFacts(shown, "PostgreSQL", known=known_revisions(), error=cause.splitlines()[0])
    finally:
        engine.dispose()
    return StoreFacts(shown, f"PostgreSQL {version}", None if revision is None else str(revision), known_revisions())


def hosts(url: str) -> tuple[str, ...]:
    """Name the hosts whose workers the store knows; empty when it cannot be asked. Changes nothing."""
    try:
        engine = open_engine(url)
    except ArgumentError:
        return ()
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("workers"):
                return ()
            return tuple(connection.scalars(text("SELECT DISTINCT host FROM workers ORDER BY host")))
    except SQLAlchemyError:
        return ()  # what is wrong with it, the look at the store tells
    finally:
        engine.dispose()


def signs(url: str) -> Signs | None:
    """Tell when sweeper and comparer were last heard of; None when the store cannot be asked. Changes nothing."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return None  # to open it would make it
    database = Database(open_engine(url))
    try:
        with database.read() as connection:
            if not inspect(connection).has_table("heartbeats"):
                return None
        return SqlHeartbeats(database).signs()
    except (SQLAlchemyError, StoreUnavailable):
        return None  # what is wrong with it, the look at the store tells
    finally:
        database.close()
