"""Copies of databases: made, labelled, frozen and dropped, on the server itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql

from runner.adapters.postgres_link import Connection, Server, execute, name, rows, value
from runner.adapters.postgres_names import Label, check_ours, read_label
from runner.errors import DatabaseRefused, DatabaseUnavailable, SourceInUse
from runner.model import Clone

# PostgreSQL 18 brought file_copy_method; `clone` shares the blocks where the filesystem can (XFS with reflink, Btrfs).
CLONING = 180_000
DROPS = 3

# How long somebody who makes or drops the same database is waited for. What a host that was lost holds is free by then.
LOCK_MILLISECONDS = 30_000

COMMENTS = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
# Of another role's session we see no state or type; autovacuum's workers, which step aside, have no user.
SESSIONS = """
SELECT pid, usename, application_name, state, backend_type FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid() AND usename IS NOT NULL ORDER BY pid
"""


def copy(connection: Connection, template: str, database: str, label: Label, *, limit: int = -1) -> Clone:
    """Make `database` from `template`, owned by us, closed to PUBLIC, and labelled; raises SourceInUse.

    Holds the name's lock from before the copy exists until it is labelled, so that a sweep can tell a copy that is
    just being made from one whose maker died.
    """
    with locked(connection, database):
        refuse_foreign(connection, database, label.installation)
        _drop(connection, database)
        clone = _create(connection, template, database, limit)
        execute(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name(database))
        describe(connection, "DATABASE", database, label)
    return clone


def _create(connection: Connection, template: str, database: str, limit: int) -> Clone:
    """Copy with the best method that the server accepts, and once more when someone was in the template."""
    methods = ["file_copy", "wal_log"]
    if connection.info.server_version >= CLONING:
        methods.insert(0, "clone")
    again = True
    while True:
        method = methods[0]
        start = time.monotonic()
        try:
            if connection.info.server_version >= CLONING:
                execute(connection, "SET file_copy_method = {}", sql.Literal("clone" if method == "clone" else "copy"))
            execute(
                connection,
                "CREATE DATABASE {} TEMPLATE {} STRATEGY {} CONNECTION LIMIT {}",
                name(database), name(template), sql.Literal("wal_log" if method == "wal_log" else "file_copy"),
                sql.Literal(limit),
            )  # fmt: skip
        except psycopg.errors.ObjectInUse:
            # The server itself has waited 5 s for them to go; our own short sessions may have taken turns.
            if not again:
                raise SourceInUse(in_use(connection, template)) from None
            again = False
        except (psycopg.errors.InvalidParameterValue, psycopg.errors.FeatureNotSupported):
            if len(methods) == 1:
                raise
            methods.pop(0)
        else:
            return Clone(database, method, time.monotonic() - start)


def in_use(connection: Connection, database: str) -> str:
    """Name the sessions on a database."""
    found = sessions(connection, database)
    words = "; ".join(found) or "a prepared transaction or a session that has just gone"
    return f"the database {database} is in use, so it cannot be copied: {words}; end these sessions and try again"


def sessions(connection: Connection, database: str) -> list[str]:
    """Describe the sessions on a database but our own: pid, user, application, state."""
    return [
        f"pid {pid} user {user} application {application or '-'} state {state or kind or 'not shown to us'}"
        for pid, user, application, state, kind in rows(connection, SESSIONS, database)
    ]


@contextmanager
def locked(connection: Connection, database: str) -> Iterator[None]:
    """Hold the lock of a database's name; raises DatabaseUnavailable when somebody else does for long."""
    with suppress(psycopg.errors.InvalidParameterValue):  # a server on Windows cannot look
        # In the middle of a statement too, which a copy can be in for minutes, the server looks whether we are still there.
        execute(connection, "SET client_connection_check_interval = '2s'")
    execute(connection, "SET lock_timeout = {}", sql.Literal(f"{LOCK_MILLISECONDS}ms"))
    try:
        value(connection, "SELECT pg_advisory_lock(hashtextextended(%s, 0))", f"seatrial {database}")
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailable(
            f"the database {database} has been in another session's hands, which makes or drops it, for "
            f"{LOCK_MILLISECONDS / 1000:.0f} s"
        ) from error
    finally:
        if not connection.closed:
            execute(connection, "SET lock_timeout = 0")
    try:
        yield
    finally:
        if not connection.closed:
            value(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", f"seatrial {database}")


def unlocked(connection: Connection, database: str) -> bool:
    """Tell whether nobody holds the lock of a database's name."""
    got = bool(value(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", f"seatrial {database}"))
    if got:
        value(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", f"seatrial {database}")
    return got


def describe(connection: Connection, kind: str, of: str, label: Label) -> None:
    """Write the label as the comment of a DATABASE or ROLE."""
    execute(connection, "COMMENT ON {} {} IS {}", sql.SQL(kind), name(of), sql.Literal(label.text()))


def exists(connection: Connection, database: str) -> bool:
    return value(connection, "SELECT 1 FROM pg_database WHERE datname = %s", database) is not None


def label_of(connection: Connection, database: str) -> Label | None:
    """Read the label of a database; None when it has none or is not there."""
    return read_label(value(connection, COMMENTS, database))


def refuse_foreign(connection: Connection, database: str, installation: str) -> None:
    """Raise DatabaseRefused when a database of that name stands there and is not ours to drop.

    One without a label is ours when it has one of our names and our role owns it: its maker died before labelling.
    """
    check_ours(database)
    row = connection.execute(
        b"SELECT shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba) = current_user "
        b"FROM pg_database WHERE datname = %s",
        (database,),
    ).fetchone()
    if row is None:
        return
    label = read_label(row[0])
    if label is None and (row[0] is not None or not row[1]):
        raise DatabaseRefused(f"the database {database} stands there already and was not made by Seatrial")
    if label is not None and label.installation != installation:
        raise DatabaseRefused(
            f"the database {database} belongs to another Seatrial on this server (installation {label.installation})"
        )


def freeze(server: Server, connection: Connection, database: str) -> None:
    """Refuse connections to a database of ours and wait until our own sessions are off it; raises SourceInUse."""
    settle(server, connection, database)
    execute(connection, "ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name(database))
    deadline = time.monotonic() + 5.0
    while sessions(connection, database):
        if time.monotonic() > deadline:
            raise SourceInUse(in_use(connection, database))
        time.sleep(0.02)


def settle(server: Server, connection: Connection, database: str) -> None:
    """Roll back the prepared transactions in a database of ours: each forbids to copy and to drop it."""
    found = rows(connection, "SELECT gid, owner::text FROM pg_prepared_xacts WHERE database = %s", database)
    if not found:
        return
    with server.session(database) as inside:
        for gid, owner in found:
            execute(inside, "SET ROLE {}", name(owner))
            execute(inside, "ROLLBACK PREPARED {}", sql.Literal(gid))


def drop_database(server: Server, connection: Connection, database: str, installation: str) -> None:
    """Drop a database of ours with the sessions on it; safe to call when it is gone."""
    with locked(connection, database):
        refuse_foreign(connection, database, installation)
        if exists(connection, database):
            settle(server, connection, database)
            _drop(connection, database)


def _drop(connection: Connection, database: str) -> None:
    """Drop a database with the sessions on it, whether or not autovacuum is at work in it.

    By force nobody but a superuser may end autovacuum's workers, which are no role's; they step aside when it is asked for
    without, which in turn waits 5 s for all others and then gives up.
    """
    for left in reversed(range(DROPS)):
        try:
            execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name(database))
            return
        except psycopg.errors.InsufficientPrivilege:
            if not left:
                raise
        try:
            execute(connection, "DROP DATABASE IF EXISTS {}", name(database))
            return
        except psycopg.errors.ObjectInUse:
            continue
