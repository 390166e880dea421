"""The marker of a source and its frozen bases: bless, find, forget, check."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from psycopg import sql

from runner.adapters.postgres_copy import (
    COMMENTS,
    copy,
    describe,
    drop_database,
    exists,
    freeze,
    in_use,
    label_of,
    sessions,
    unlocked,
)
from runner.adapters.postgres_link import Connection, LoginRefused, Server, execute, name, rows, value
from runner.adapters.postgres_names import (
    PRODUCTION,
    VERIFICATION,
    Label,
    SourceCheck,
    SourceProblem,
    base_name,
    check_unused,
    choose,
    marked,
    marker,
    new_data_id,
    read_label,
)
from runner.adapters.postgres_reach import find_owner, judge_ourselves, judge_owner
from runner.adapters.postgres_rights import carry, drop_mappings, settings_of
from runner.errors import DatabaseRefused, DatabaseUnavailable, SourceInUse
from runner.model import Base

LEAVING_SECONDS = 1.0  # a session that was just closed is listed for a moment

BASES = """
SELECT datname, shobj_description(oid, 'pg_database'), datallowconn, pg_database_size(oid) FROM pg_database
WHERE datname LIKE 'seatrial\\_base\\_%%' AND pg_has_role(datdba, 'USAGE')
"""


def require_marker(server: Server, connection: Connection, *, lent_in: str | None = None) -> None:
    """Raise DatabaseRefused unless the source carries the positive marker; reads the server's catalogue alone.

    `lent_in`: an installation whose bases may have it while the source is refreshed and has none (or is not there).
    """
    source, database = server.source, server.database
    found = marker(value(connection, COMMENTS, database))
    if found != PRODUCTION and lent_in is not None and any(lent(connection, server, lent_in)):
        return
    if not exists(connection, database):
        raise DatabaseRefused(f"the database {database} of the source {source} does not exist on {server.place}")
    if found == PRODUCTION:
        raise DatabaseRefused(
            f"the database {database} on {server.place} is marked as production and is never used: let the source "
            f"{source} name a copy of it; on a copy that kept the mark, remove that: "
            f'COMMENT ON DATABASE "{database}" IS NULL'
        )
    if found != VERIFICATION:
        was = f" (its marker says {found!r})" if found else ""
        raise DatabaseRefused(
            f"the database {database} on {server.place} is not marked as a verification database{was}; when it is one, "
            f"run: seatrial db bless {source}"
        )


def bases(connection: Connection, source: str, installation: str) -> list[Base]:
    """List the frozen bases of a source, newest first."""
    found = []
    for database, comment, connectable, size in rows(connection, BASES):
        label = read_label(comment)
        if label is None or connectable or (label.kind, label.source) != ("base", source):
            continue
        if label.installation == installation:
            made = datetime.fromisoformat(label.made_at)
            found.append(Base(source, str(database), label.data_id, label.owner, made, int(size), label.name))
    return sorted(found, key=lambda base: base.data_id, reverse=True)


def lent(connection: Connection, server: Server, installation: str) -> list[Label]:
    """Give the labels of the bases that have the source's marker while it is refreshed."""
    found = [read_label(comment) for _, comment, _, _ in rows(connection, BASES)]
    ours = [label for label in found if label is not None and label.lent == server.database]
    return [label for label in ours if (label.source, label.installation) == (server.source, installation)]


def find(
    server: Server, connection: Connection, installation: str, data_id: str | None, snapshot: str | None = None
) -> Base:
    """Find the newest base of a source whose marker stands, the one with that id, or the one of that name."""
    require_marker(server, connection, lent_in=installation)
    found = bases(connection, server.source, installation)
    if not found:
        raise DatabaseRefused(
            f"the source {server.source} has no frozen base yet; run: seatrial db bless {server.source}"
        )
    return choose(found, data_id, snapshot)


def judge(server: Server, connection: Connection, owner: str | None) -> tuple[str, list[SourceProblem]]:
    """Find the application's role and what speaks against using the source; opens a short session in it."""
    problems = judge_ourselves(connection, server.database)
    with server.session(server.database) as inside:
        chosen = owner or find_owner(inside)
        if chosen is None:
            remedy = "set `owner` to the application's role in the source's settings"
            problems.append(
                SourceProblem(f"the database {server.database} has no tables that tell whose it is", remedy)
            )
            return "", problems
        problems += judge_owner(inside, server.database, chosen)
    return chosen, problems


def bless(server: Server, *, owner: str | None, installation: str) -> Base:
    """Mark the source as a verification database and freeze a base from it."""
    with server.session() as connection, undisturbed(server, connection):
        return mark_and_freeze(server, connection, owner, installation)


def mark_and_freeze(
    server: Server, connection: Connection, owner: str | None, installation: str, snapshot: str | None = None
) -> Base:
    """Mark the source and freeze a base of it."""
    database = server.database
    comment = value(connection, COMMENTS, database)
    if not exists(connection, database) or marker(comment) == PRODUCTION:
        require_marker(server, connection)
    chosen = _ready(server, connection, owner)
    if marker(comment) != VERIFICATION:
        execute(connection, "COMMENT ON DATABASE {} IS {}", name(database), sql.Literal(marked(comment)))
    return _freeze_base(server, connection, chosen, installation, snapshot)


def snapshot_of(server: Server, *, owner: str | None, installation: str, snapshot: str | None) -> Base:
    """Freeze a base of a source that is marked already."""
    with server.session() as connection, undisturbed(server, connection):
        require_marker(server, connection)
        return _freeze_base(server, connection, _ready(server, connection, owner), installation, snapshot)


@contextmanager
def undisturbed(server: Server, connection: Connection) -> Iterator[None]:
    """Keep everybody else from blessing, refreshing or taking a snapshot of the source; raises SourceInUse."""
    key = f"seatrial source {server.database}"
    if not value(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key):
        raise SourceInUse(
            f"the source {server.source} is being refreshed, blessed or copied by somebody else: wait for its end"
        )
    try:
        yield
    finally:
        if not connection.closed:
            value(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)


def _ready(server: Server, connection: Connection, owner: str | None) -> str:
    """Wait until nobody is on the source, and give the application's role; raises SourceInUse, DatabaseRefused."""
    until = time.monotonic() + LEAVING_SECONDS
    while sessions(connection, server.database):
        if time.monotonic() >= until:
            raise SourceInUse(in_use(connection, server.database))
        time.sleep(0.1)
    chosen, problems = judge(server, connection, owner)
    refusing = [problem for problem in problems if problem.refuses]
    if refusing:
        raise DatabaseRefused(f"the source {server.source} cannot be used yet. " + ". ".join(str(p) for p in refusing))
    return chosen


def _freeze_base(
    server: Server, connection: Connection, owner: str, installation: str, snapshot: str | None = None
) -> Base:
    """Copy a source that has its marker; from then on no base has it instead."""
    source = server.source
    if snapshot is not None:
        check_unused(snapshot, bases(connection, source, installation))
    now = server_time(connection)
    data_id = new_data_id(now)
    base = base_name(source, data_id)
    settings = settings_of(connection, server.database, owner)
    label = Label(installation, "base", source, base, now.isoformat(), data_id, owner, settings, snapshot or "")
    try:
        copy(connection, server.database, base, label)
        with server.session(base) as inside:
            drop_mappings(inside)
        carry(connection, server.database, base)
        freeze(server, connection, base)
    except BaseException:
        if not connection.closed:
            drop_database(server, connection, base, installation)
        raise
    for other in lent(connection, server, installation):
        describe(connection, "DATABASE", other.database, replace(other, lent=""))
    size = int(value(connection, "SELECT pg_database_size(%s::name)", base))
    return Base(source, base, data_id, owner, now, size, label.name)


def server_time(connection: Connection) -> datetime:
    now = value(connection, "SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return now.astimezone(UTC).replace(microsecond=now.microsecond)


def forget(server: Server, connection: Connection, installation: str, *, keep: int, needed: set[str]) -> list[str]:
    """Drop the bases of a source but the newest `keep` and those that are `needed`, and half-made ones."""
    standing = bases(connection, server.source, installation)
    dropped = []
    for base in standing[keep:]:
        if base.database not in needed:
            drop_database(server, connection, base.database, installation)
            dropped.append(base.database)
    for database, comment, connectable, _ in rows(connection, BASES):
        label = read_label(comment)
        half = connectable and label is not None and (label.source, label.installation) == (server.source, installation)
        if half and unlocked(connection, str(database)) and _old(connection, label):
            drop_database(server, connection, str(database), installation)
            dropped.append(str(database))
    return dropped


def _old(connection: Connection, label: Label | None, seconds: float = 3600.0) -> bool:
    if label is None:
        return False
    return (server_time(connection) - datetime.fromisoformat(label.made_at)).total_seconds() > seconds


def check(server: Server, *, owner: str | None, installation: str) -> SourceCheck:
    """Tell all that speaks for and against using a source, and how long a clone takes."""
    try:
        with server.session() as connection:
            return _check(server, connection, owner, installation)
    except DatabaseUnavailable as error:
        remedy = "see that the server runs and that its pg_hba.conf admits Seatrial's role"
        if isinstance(error, LoginRefused):
            told = f"what dsn, dsn_env or dsn_file of [databases.{server.source}] in seatrial.toml names"
            remedy = f"correct the role or the password in {told}; docs/databases.md says how the role is made"
        problem = SourceProblem(error.text, remedy)
        return SourceCheck(reachable=False, problems=(problem,))


def _check(server: Server, connection: Connection, owner: str | None, installation: str) -> SourceCheck:
    version = str(value(connection, "SHOW server_version"))
    if marker(value(connection, COMMENTS, server.database)) is None and lent(connection, server, installation):
        return _check_lent(server, connection, version, installation)
    if not exists(connection, server.database):
        problem = SourceProblem(f"there is no database {server.database} on {server.place}", "correct the dsn")
        return SourceCheck(reachable=True, version=version, problems=(problem,))
    found = marker(value(connection, COMMENTS, server.database))
    problems = []
    chosen = ""
    try:
        require_marker(server, connection)
    except DatabaseRefused as error:
        problems.append(SourceProblem(error.text, f"seatrial db bless {server.source}, on a copy of production only"))
    if found != PRODUCTION:  # not one statement in a database that says it is production
        chosen, judged = judge(server, connection, owner)
        problems += judged
    standing = bases(connection, server.source, installation)
    if found == VERIFICATION and not standing:
        problems.append(SourceProblem("there is no frozen base", f"seatrial db bless {server.source}"))
    method, seconds = "", None
    if standing and found == VERIFICATION:
        method, seconds = _measure(server, connection, standing[0], installation)
    return SourceCheck(
        reachable=True, version=version, marker=found, problems=tuple(problems), owner=chosen, method=method,
        seconds=seconds, size=_size(connection, server.database), sizes={base.database: base.size for base in standing},
    )  # fmt: skip


def _check_lent(server: Server, connection: Connection, version: str, installation: str) -> SourceCheck:
    """Tell of a source that is being refreshed: whatever it is like just now, its newest base serves."""
    text = "it is being refreshed, or that failed; until it has ended well its snapshots serve on"
    problem = SourceProblem(text, f"when none is under way: seatrial db refresh {server.source}", refuses=False)
    standing = bases(connection, server.source, installation)
    method, seconds = _measure(server, connection, standing[0], installation)
    return SourceCheck(
        reachable=True, version=version, problems=(problem,), owner=standing[0].owner, method=method, seconds=seconds,
        sizes={base.database: base.size for base in standing}, lent=True,
    )  # fmt: skip


def _size(connection: Connection, database: str) -> int | None:
    """Give a database's size in bytes, or None when we may not connect to it."""
    found = value(
        connection,
        "SELECT CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END "
        "FROM pg_database WHERE datname = %s",
        database,
    )
    return None if found is None else int(found)


def _measure(server: Server, connection: Connection, base: Base, installation: str) -> tuple[str, float]:
    """Make a clone of a base and drop it."""
    now = server_time(connection)
    probe = f"seatrial_x_check_{server.source}_{int(time.time() * 1000):x}"
    label = label_of(connection, base.database)
    assert label is not None
    try:
        made = copy(connection, base.database, probe, label.of("clone", probe, now.isoformat()))
    finally:
        if not connection.closed:
            drop_database(server, connection, probe, installation)
    return made.method, made.seconds
