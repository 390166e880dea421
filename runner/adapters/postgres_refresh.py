"""A source while its data is replaced: its snapshots serve on, and it has no marker until all is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from runner.adapters.postgres_base import BASES, lent, mark_and_freeze, require_marker, undisturbed
from runner.adapters.postgres_copy import COMMENTS, describe, exists
from runner.adapters.postgres_link import Connection, Server, execute, name, rows, value
from runner.adapters.postgres_names import PRODUCTION, marker, read_label, unmarked
from runner.adapters.postgres_reach import find_owner
from runner.errors import DatabaseRefused
from runner.model import Base


@dataclass
class PostgresRefresh:
    """A refresh that is under way. Whatever ends it before finish() leaves the old snapshots serving."""

    server: Server
    connection: Connection
    owner: str | None
    installation: str

    def mask(self, file: Path) -> None:
        """Run an SQL file in the source as the application's role, in one transaction; raises DatabaseRefused."""
        self.unmark()  # what filled the source may have brought a marker along
        text = file.read_text("utf-8")
        try:
            with self.server.told():
                info = self.server.conninfo(self.server.database, options="")
                with psycopg.connect(info, autocommit=True) as inside:
                    role = self.owner or find_owner(inside)
                    if role is not None:
                        execute(inside, "SET ROLE {}", name(role))
                    inside.execute(text.encode())
        except DatabaseRefused as error:
            raise DatabaseRefused(f"masking by {file.name} failed: {error.text}") from error

    def unmark(self) -> None:
        """Take the marker away; raises DatabaseRefused for a source that says it is production, or is not there."""
        with self.server.told():
            comment = value(self.connection, COMMENTS, self.server.database)
            if marker(comment) == PRODUCTION or not exists(self.connection, self.server.database):
                require_marker(self.server, self.connection)
            if marker(comment) is not None:
                said = sql.Literal(unmarked(comment) or None)
                execute(self.connection, "COMMENT ON DATABASE {} IS {}", name(self.server.database), said)

    def finish(self, snapshot: str | None = None) -> Base:
        """Write the marker and freeze a snapshot of the new data."""
        with self.server.told():
            return mark_and_freeze(self.server, self.connection, self.owner, self.installation, snapshot)


@contextmanager
def refreshing(server: Server, *, owner: str | None, installation: str) -> Iterator[PostgresRefresh]:
    """Begin a refresh: lend the marker to the snapshots, then take it from the source.

    Raises SourceInUse when another one is under way, DatabaseRefused for a source that says it is production, and for
    one that has no marker, unless that is lent already: a refresh before this one failed.
    """
    with server.session() as connection, undisturbed(server, connection):
        found = PostgresRefresh(server, connection, owner, installation)
        comment = value(connection, COMMENTS, server.database)
        if marker(comment) is not None or not lent(connection, server, installation):
            require_marker(server, connection)
            _lend(connection, server, installation)
            found.unmark()
        yield found


def _lend(connection: Connection, server: Server, installation: str) -> None:
    for database, comment, connectable, _ in rows(connection, BASES):
        label = read_label(comment)
        if label is None or connectable or label.kind != "base":
            continue
        if (label.source, label.installation) == (server.source, installation):
            describe(connection, "DATABASE", str(database), replace(label, lent=server.database))
