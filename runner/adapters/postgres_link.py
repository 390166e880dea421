"""Sessions on a PostgreSQL server, with the driver's errors told as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg import conninfo, sql

from runner.errors import DatabaseRefused, DatabaseUnavailable

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# SQLSTATE classes of "not now": connection, resources, an operator's intervention (restart, recovery), system.
WORLD = ("08", "53", "57P", "58", "XX")
# A half-open link is noticed within 5 + 3 × 2 s, not after two hours.
LINK = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# What branch code wrote into a clone may not take the place of a catalog's name. And the server too notices a link that is
# dead, within the same time: a host that lost its power keeps no locks.
OPTIONS = (
    "-c search_path=pg_catalog -c client_encoding=UTF8 -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 "
    "-c tcp_keepalives_count=3 -c tcp_user_timeout=15s"
)

# What a server says, in English, to a role or a password that it does not take; libpq gives it no code.
LOGIN = re.compile(
    r"password authentication failed|no password supplied|role \".*\" (does not exist|is not permitted to log in)"
)


class LoginRefused(DatabaseUnavailable):
    """The verification database's server refused the role or the password."""


class Server:
    """The server that a source stands on, reached as Seatrial's own role.

    `maintenance` is the database in which our sessions sit: never the source, a base or a template, since one
    idle session there makes every clone fail.
    """

    def __init__(self, source: str, dsn: str, *, maintenance: str = "postgres") -> None:
        self.source = source
        self.maintenance = maintenance
        try:
            self._parameters = {k: v for k, v in conninfo.conninfo_to_dict(dsn).items() if v is not None}
        except psycopg.ProgrammingError:
            # The driver's message repeats parts of the text, the password among them.
            raise DatabaseRefused(
                f"the dsn of the database source {source} is not a PostgreSQL connection string "
                "(postgresql://user:password@host:5432/database)"
            ) from None
        self.database = str(self._parameters.get("dbname", ""))
        self.host = str(self._parameters.get("host", "127.0.0.1"))
        self.port = int(self._parameters.get("port", 5432))
        if not self.database:
            raise DatabaseRefused(f"the dsn of the database source {source} names no database")
        if "," in self.host:
            raise DatabaseRefused(f"the dsn of the database source {source} names several hosts: give one")

    def __repr__(self) -> str:
        return f"Server({self.source!r}, {self.host}:{self.port}, {self.database!r})"

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def sslmode(self) -> str:
        """Give how the server's certificate is checked; as for libpq, `require` with certificates is verify-ca."""
        mode = str(self._parameters.get("sslmode", "prefer"))
        return "verify-ca" if mode == "require" and self.server_ca is not None else mode

    @property
    def server_ca(self) -> Path | None:
        """Give the file with the certificates that sign the server's, if the dsn names one."""
        path = self._parameters.get("sslrootcert")
        return None if path is None else Path(str(path))

    def conninfo(self, database: str | None = None, **more: str) -> str:
        """Give the connection string, password and all, for the driver alone."""
        parameters = {
            **LINK,
            **self._parameters,
            "dbname": database or self.maintenance,
            "application_name": "seatrial",
            "options": OPTIONS,
            **more,
        }
        return conninfo.make_conninfo("", **parameters)

    @contextmanager
    def session(self, database: str | None = None) -> Iterator[Connection]:
        """Open a session, in autocommit, as Seatrial's role; in the maintenance database unless told otherwise."""
        with self.told():
            connection: Connection = psycopg.connect(self.conninfo(database), autocommit=True)
            # The pool's `with` would commit or roll back; in autocommit only the closing matters.
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn the driver's errors into DatabaseUnavailable (the world) and DatabaseRefused (rights, names)."""
        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate
            words = " ".join((error.diag.message_primary or str(error)).split())
            if error.diag.message_detail:
                words += f" ({' '.join(error.diag.message_detail.split())})"
            if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and state is None:
                if LOGIN.search(words):
                    text = f"{self.source}: {self.place} refused the role or the password: {words}"
                    raise LoginRefused(text) from error
                raise DatabaseUnavailable(f"{self.source}: {self.place} does not answer: {words}") from error
            if state is not None and state.startswith(WORLD):
                raise DatabaseUnavailable(f"{self.source}: {self.place}: {words}") from error
            raise DatabaseRefused(f"{self.source}: {self.place}: {words}") from error


def name(*parts: str) -> sql.Identifier:
    """Quote a name, qualified or not."""
    return sql.Identifier(*parts)


def execute(connection: Connection, statement: str, *names: sql.Composable) -> None:
    """Run a statement with each `{}` filled by an already quoted part."""
    connection.execute(sql.SQL(statement).format(*names))


def rows(connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Give all rows of a query with `%s` parameters."""
    return connection.execute(query.encode(), values).fetchall()


def value(connection: Connection, query: str, *values: object) -> Any:
    """Give the first column of the first row, or None."""
    row = connection.execute(query.encode(), values).fetchone()
    return row[0] if row else None
