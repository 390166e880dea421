"""A verification database on a PostgreSQL ≥ 15, cloned by the server itself (CREATE DATABASE … TEMPLATE)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime

import psycopg

from runner.adapters import postgres_base, postgres_copy, postgres_reach, postgres_rights
from runner.adapters.postgres_link import Connection, Server, rows, value
from runner.adapters.postgres_names import (
    Label,
    SourceCheck,
    check_clone,
    check_ours,
    check_source,
    made_anew,
    read_label,
)
from runner.adapters.postgres_probe import PostgresProbe
from runner.adapters.postgres_refresh import PostgresRefresh, refreshing
from runner.errors import DatabaseRefused, DatabaseUnavailable, InfraError
from runner.model import Base, Clone, Login, Origin

OURS = """
SELECT datname FROM pg_database WHERE datname LIKE 'seatrial\\_leg\\_%%' OR datname LIKE 'seatrial\\_x\\_%%' ORDER BY 1
"""
MADE = """
SELECT shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba) = current_user FROM pg_database WHERE datname = %s
"""


class PostgresSource:
    """One source, named by its dsn, as Seatrial's own role (CREATEDB and CREATEROLE, never a superuser).

    `owner`: the application's role, which branch code becomes; default: the owner of most tables of the source.
    `installation`: the id of this Seatrial; databases and roles of another one are never touched.
    `maintenance`: the database in which our own sessions sit.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        *,
        installation: str,
        owner: str | None = None,
        connection_limit: int = 20,
        maintenance: str = "postgres",
    ) -> None:
        self.name = check_source(name)
        self._dsn = dsn
        self._server = Server(name, dsn, maintenance=maintenance)
        self._installation = installation
        self._owner = owner
        self._limit = connection_limit

    def __repr__(self) -> str:
        return f"PostgresSource({self.name!r}, {self._server.place}, {self._server.database!r})"

    @property
    def place(self) -> str:
        """Name the database and its server for people, without the password."""
        return f"{self._server.place}, database {self._server.database}"

    # ---- the port ------------------------------------------------------------------------------------------

    def base(self, data_id: str | None = None, *, snapshot: str | None = None) -> Base:
        """Find the newest blessed base, the one with that id or of that name; DatabaseRefused when it is missing."""
        with self._server.session() as connection:
            return postgres_base.find(self._server, connection, self._installation, data_id, snapshot)

    def made_from(self, database: str) -> Origin:
        """Tell what a clone that stands was made from, by its label."""
        with self._server.session() as connection:
            label, _ = self._clone(connection, database)
            return Origin(label.data_id, label.owner, label.snapshot)

    def clone(self, template: str, name: str, *, fence: Callable[[], None] = lambda: None) -> Clone:
        """Make database `name` from a frozen database of ours, with its grants and settings; asks the marker again."""
        check_ours(template)
        check_clone(name)
        with self._server.session() as connection:
            postgres_base.require_marker(self._server, connection, lent_in=self._installation)
            label = self._frozen(connection, template)
            now = postgres_base.server_time(connection).isoformat()
            with postgres_copy.locked(connection, name):
                fence()
                self._release(connection, name)
                # The door counts; this is the limit behind it, with room for sessions that are still ending.
                made = postgres_copy.copy(
                    connection, template, name, label.of("clone", name, now), limit=2 * self._limit + 5
                )
                postgres_rights.carry(connection, template, name)
        return made

    def login(self, database: str, *, role: str, owner: str, fence: Callable[[], None] = lambda: None) -> Login:
        """Make (or remake) the login role for a clone, and try it once by the road that the door takes."""
        check_clone(database)
        with self._server.session() as connection, postgres_copy.locked(connection, database):
            fence()
            label, connectable = self._clone(connection, database)
            if not connectable:
                raise DatabaseRefused(f"the clone {database} is frozen")
            self._require_harmless(connection, owner)
            of_role = label.of("role", database, postgres_base.server_time(connection).isoformat())
            password = postgres_rights.make_role(self._server, connection, role, database, owner, of_role)
        server = self._server
        login = Login(
            server.host, server.port, database, role, password, self._limit, server.sslmode, server.server_ca
        )  # fmt: skip
        self._try(login, owner)
        return login

    def freeze(self, database: str, *, fence: Callable[[], None] = lambda: None) -> None:
        """Refuse connections to a prepared clone and give up its login roles; ends only our own sessions on it."""
        check_clone(database)
        with self._server.session() as connection, postgres_copy.locked(connection, database):
            fence()
            label, connectable = self._clone(connection, database)
            roles = self._roles_on(connection, database)
            for role in roles:
                postgres_rights.shut_role(connection, role)
            if connectable:
                postgres_copy.settle(self._server, connection, database)
                for role in roles:
                    postgres_rights.hand_over(self._server, connection, role, database, label.owner)
                postgres_copy.freeze(self._server, connection, database)
            for role in roles:
                postgres_rights.drop_role(connection, role, self._installation)

    def drop(self, database: str, *, role: str | None = None, fence: Callable[[], None] = lambda: None) -> None:
        """Drop a clone of ours with the sessions on it, and its roles; safe to call twice."""
        check_clone(database)
        if role is not None:
            check_clone(role)
        with self._server.session() as connection, postgres_copy.locked(connection, database):
            fence()
            self._release(connection, database, role)

    def shut(self, role: str) -> None:
        """Let a login role of ours in no more and end its sessions."""
        check_clone(role)
        with self._server.session() as connection:
            if role in postgres_rights.roles_of(connection, self._installation):
                postgres_rights.shut_role(connection, role)

    def stands(self, database: str, *, role: str) -> bool:
        """Tell whether a clone and its login role, which may log in, are there."""
        with suppress(DatabaseRefused, DatabaseUnavailable), self._server.session(database):
            pass  # a drop ends the sessions first, and who connects meanwhile waits for its end
        with self._server.session() as connection:
            comes_in = value(connection, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", role)
            return bool(comes_in) and postgres_copy.exists(connection, database)

    def probe(self) -> PostgresProbe:
        """Open the watch on the link to the server."""
        return PostgresProbe(self._server)

    # ---- what an admin asks --------------------------------------------------------------------------------

    def bless(self) -> Base:
        """Mark the source as a verification database and freeze a base of its data as it is now.

        Raises DatabaseRefused (marked as production; rights that reach beyond a clone) and SourceInUse, which names
        the sessions on the source: none is ended.
        """
        return postgres_base.bless(self._server, owner=self._owner, installation=self._installation)

    def snapshot(self, name: str | None = None) -> Base:
        """Freeze the data of a source that is marked, as it is now; raises as bless(), and for a name that is taken."""
        return postgres_base.snapshot_of(
            self._server, owner=self._owner, installation=self._installation, snapshot=name
        )

    def remove(self, base: Base) -> None:
        """Drop a snapshot of this source."""
        with self._server.session() as connection:
            if base not in postgres_base.bases(connection, self.name, self._installation):
                raise DatabaseRefused(f"the source {self.name} has no snapshot {base.name}")
            postgres_copy.drop_database(self._server, connection, base.database, self._installation)

    def refreshing(self) -> AbstractContextManager[PostgresRefresh]:
        """Begin to replace the data of the source: its snapshots serve on, and it has no marker until the end."""
        return refreshing(self._server, owner=self._owner, installation=self._installation)

    @property
    def dsn(self) -> str:
        """Give the connection string, password and all, for the commands that refresh the source alone."""
        return self._dsn

    def bases(self) -> list[Base]:
        """List the frozen bases, newest first."""
        with self._server.session() as connection:
            return postgres_base.bases(connection, self.name, self._installation)

    def forget(self, *, keep: int = 2, needed: set[str] | None = None) -> list[str]:
        """Drop all bases but the newest `keep` and those that are `needed`; gives the names of the dropped ones."""
        if keep < 1:
            raise DatabaseRefused("at least one base is kept")
        with self._server.session() as connection:
            return postgres_base.forget(self._server, connection, self._installation, keep=keep, needed=needed or set())

    def check(self) -> SourceCheck:
        """Tell all that speaks for and against using the source, and how long a clone takes."""
        return postgres_base.check(self._server, owner=self._owner, installation=self._installation)

    def made_for(self, run: int) -> list[str]:
        """List the clones and login roles that a run's legs and executions have, complete or not."""
        ours = re.compile(rf"seatrial_(leg|x)_{re.escape(self._installation)}_r{run}_")
        with self._server.session() as connection:
            found = {str(database) for (database,) in rows(connection, OURS)}
            found |= set(postgres_rights.roles_of(connection, self._installation))
        return sorted(name for name in found if ours.match(name))

    def sweep(self, wanted: Callable[[], set[str]]) -> list[str]:
        """Drop this installation's clones and roles that nobody wants; gives the names of what was dropped.

        `wanted`: reads the names that live executions and legs hold, which are recorded before they are made. So what
        was made before it is asked, by the server's clock, and is not among them, is nobody's. When each was made is read
        again while nobody else can make it anew. One that cannot be dropped keeps no other from it, and is told by an error
        when there is no other.
        """
        dropped = []
        refused: list[Exception] = []
        with self._server.session() as connection:
            now = postgres_base.server_time(connection)
            keep = wanted()
            for (database,) in rows(connection, OURS):
                if database in keep or not self._stale(connection, str(database), now):
                    continue
                with _others_go_on(connection, refused), postgres_copy.locked(connection, str(database)):
                    if self._stale(connection, str(database), now):
                        self._release(connection, str(database))
                        dropped.append(str(database))
            for role, database in self._stale_roles(connection, now).items():
                if role in keep:
                    continue
                with _others_go_on(connection, refused), postgres_copy.locked(connection, database):
                    if role in self._stale_roles(connection, now):
                        postgres_rights.drop_role(connection, role, self._installation)
                        dropped.append(role)
            if refused and not dropped:
                raise refused[-1]
        return dropped

    # ---- inner ---------------------------------------------------------------------------------------------

    def _stale(self, connection: Connection, database: str, now: datetime) -> bool:
        """Tell whether a database is a clone of this source that was made before `now`, or whose maker died over it."""
        for comment, own in rows(connection, MADE, database):
            label = read_label(comment)
            if label is None:  # its maker died before it could label it, unless it is at it just now
                return comment is None and bool(own) and postgres_copy.unlocked(connection, database)
            old = datetime.fromisoformat(label.made_at) < now
            return old and (label.installation, label.source) == (self._installation, self.name)
        return False

    def _stale_roles(self, connection: Connection, now: datetime) -> dict[str, str]:
        """Give the roles of this source that were made before `now` and whose database is gone, each with its name."""
        return {
            role: label.database
            for role, label in postgres_rights.roles_of(connection, self._installation).items()
            if label.source == self.name
            and datetime.fromisoformat(label.made_at) < now
            and not postgres_copy.exists(connection, label.database)
        }

    def _clone(self, connection: Connection, database: str) -> tuple[Label, bool]:
        """Give the label of a clone of ours and whether it takes connections; raises DatabaseRefused."""
        label = postgres_copy.label_of(connection, database)
        if label is None or label.installation != self._installation:
            raise DatabaseRefused(f"there is no clone {database} of this Seatrial")
        found = value(connection, "SELECT datallowconn FROM pg_database WHERE datname = %s", database)
        return label, bool(found)

    def _frozen(self, connection: Connection, template: str) -> Label:
        """Give the label of a frozen database of ours; raises DatabaseRefused for anything else."""
        label = postgres_copy.label_of(connection, template)
        if label is None:
            raise DatabaseRefused(f"the frozen database {template} is gone; {made_anew(template, self.name)}")
        if label.installation != self._installation or label.source != self.name:
            raise DatabaseRefused(f"the frozen database {template} belongs to another Seatrial or source")
        if value(connection, "SELECT datallowconn FROM pg_database WHERE datname = %s", template):
            raise DatabaseRefused(f"the database {template} is not frozen, so it cannot be a template")
        return label

    def _require_harmless(self, connection: Connection, owner: str) -> None:
        """Ask again whether the application's role reaches beyond a clone: an admin may have changed it since."""
        problems = [p for p in postgres_reach.judge_reach(connection, owner) if p.refuses]
        if problems:
            raise DatabaseRefused(f"the source {self.name} cannot be used. " + ". ".join(str(p) for p in problems))

    def _roles_on(self, connection: Connection, database: str) -> list[str]:
        found = postgres_rights.roles_of(connection, self._installation)
        return [role for role, label in found.items() if label.database == database]

    def _release(self, connection: Connection, database: str, role: str | None = None) -> None:
        """Drop a clone and every role that was made for it."""
        postgres_copy.refuse_foreign(connection, database, self._installation)
        roles = self._roles_on(connection, database)
        for each in roles:
            postgres_rights.shut_role(connection, each)
        postgres_copy.drop_database(self._server, connection, database, self._installation)
        for each in {*roles, *([role] if role else [])}:
            postgres_rights.drop_role(connection, each, self._installation)

    def _try(self, login: Login, owner: str) -> None:
        """Log in once as the execution's role: a server that does not admit it is not the branch's fault."""
        info = self._server.conninfo(login.database, user=login.role, password=login.password, options="")
        try:
            with psycopg.connect(info, autocommit=True) as connection:
                became = value(connection, "SELECT current_user")
        except psycopg.OperationalError as error:
            words = " ".join(str(error).split())
            raise DatabaseUnavailable(
                f"{self.name}: {self._server.place} does not admit the role {login.role} of an execution (see its "
                f"pg_hba.conf): {words}"
            ) from error
        if became != owner:
            raise DatabaseRefused(f"{self.name}: the role {login.role} became {became} at login, not {owner}")


@contextmanager
def _others_go_on(connection: Connection, refused: list[Exception]) -> Iterator[None]:
    """Note why one thing cannot be dropped, instead of raising it: while the connection holds, others can."""
    try:
        yield
    except (psycopg.Error, InfraError) as error:
        if connection.closed:
            raise
        refused.append(error)


__all__ = ["PostgresSource", "SourceCheck"]
