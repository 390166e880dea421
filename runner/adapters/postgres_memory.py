"""The strict in-memory twin of PostgresSource: the same refusals, no server."""

from __future__ import annotations

import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runner.adapters.postgres_names import (
    PRODUCTION,
    VERIFICATION,
    SourceCheck,
    SourceProblem,
    base_name,
    check_clone,
    check_ours,
    check_source,
    check_unused,
    choose,
    made_anew,
)
from runner.errors import DatabaseRefused, DatabaseUnavailable, SourceInUse
from runner.model import Base, Clone, Login, Origin
from runner.ports import PROBE_SLACK


@dataclass
class _Stored:
    installation: str
    source: str
    owner: str
    data_id: str
    rows: dict[str, str]
    frozen: bool = False
    name: str = ""
    made_at: float = field(default_factory=time.monotonic)
    blessed_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class MemoryServer:
    """What several sources share: databases (name → contents), roles (name → database), and whether it answers."""

    def __init__(self) -> None:
        self.databases: dict[str, _Stored] = {}
        self.roles: dict[str, str] = {}
        self.shut: set[str] = set()
        self.markers: dict[str, str | None] = {}
        self.rows: dict[str, dict[str, str]] = {}
        self.lent: set[tuple[str, str]] = set()
        self.sessions: dict[str, list[str]] = {}
        self.owners: set[str] = {"app"}
        self.up = True
        self.lost: list[tuple[float, float | None]] = []
        self.lock = threading.RLock()
        self.number = itertools.count(1)

    def stop(self) -> None:
        """Answer no more."""
        self.up = False
        self.lost.append((time.monotonic(), None))

    def start(self) -> None:
        """Answer again."""
        self.up = True
        if self.lost and self.lost[-1][1] is None:
            self.lost[-1] = (self.lost[-1][0], time.monotonic())


class MemoryDatabases:
    """A source on a MemoryServer. A database's contents are a dict, copied at each clone."""

    def __init__(
        self,
        name: str,
        server: MemoryServer,
        *,
        installation: str = "memory",
        owner: str = "app",
        connection_limit: int = 20,
        database: str = "verification",
    ) -> None:
        self.name = check_source(name)
        self.server = server
        self._installation = installation
        self._owner = owner
        self._limit = connection_limit
        self._database = database
        server.rows.setdefault(database, {})

    def bless(self) -> Base:
        """Mark the source and freeze a base of it."""
        with self._answering():
            if self.server.markers.get(self._database) == PRODUCTION:
                self._require_marker()
            if self.server.sessions.get(self._database):
                raise SourceInUse(f"{self._database} is in use: {'; '.join(self.server.sessions[self._database])}")
            if self._owner not in self.server.owners:
                raise DatabaseRefused(f"there is no role {self._owner}")
            self.server.markers[self._database] = VERIFICATION
            self.server.lent.discard((self._installation, self.name))
            return self._freeze(None)

    def snapshot(self, name: str | None = None) -> Base:
        """Freeze a base of a source that is marked."""
        with self._answering():
            self._require_marker(lent=False)
            if self.server.sessions.get(self._database):
                raise SourceInUse(f"{self._database} is in use: {'; '.join(self.server.sessions[self._database])}")
            return self._freeze(name)

    def remove(self, base: Base) -> None:
        """Drop a snapshot of this source."""
        with self._answering():
            if base not in self._bases():
                raise DatabaseRefused(f"the source {self.name} has no snapshot {base.name}")
            del self.server.databases[base.database]

    @contextmanager
    def refreshing(self) -> Iterator[MemoryRefresh]:
        """Begin to replace the data of the source."""
        with self._answering():
            key = (self._installation, self.name)
            if self.server.markers.get(self._database) is not None or key not in self.server.lent:
                self._require_marker(lent=False)
                self.server.lent.add(key)
                self.server.markers[self._database] = None
            yield MemoryRefresh(self)

    def _freeze(self, name: str | None) -> Base:
        if name is not None:
            check_unused(name, self._bases())
        data_id = f"{next(self.server.number):06d}-{secrets.token_hex(3)}"
        rows = dict(self.server.rows[self._database])
        stored = _Stored(self._installation, self.name, self._owner, data_id, rows, frozen=True, name=name or "")
        self.server.databases[base_name(self.name, data_id)] = stored
        return self._bases()[0]

    def bases(self) -> list[Base]:
        """List the frozen bases, newest first."""
        with self._answering():
            return self._bases()

    def made_from(self, database: str) -> Origin:
        """Tell what a clone that stands was made from."""
        with self._answering():
            found = self._clone(database)
            return Origin(found.data_id, found.owner, found.name or found.data_id)

    def base(self, data_id: str | None = None, *, snapshot: str | None = None) -> Base:
        """Find the newest blessed base, the one with that id or of that name; DatabaseRefused when it is missing."""
        with self._answering():
            self._require_marker()
            found = self._bases()
            if not found:
                raise DatabaseRefused(f"no frozen base yet; run: seatrial db bless {self.name}")
            return choose(found, data_id, snapshot)

    def forget(self, *, keep: int = 2, needed: set[str] | None = None) -> list[str]:
        """Drop all bases but the newest `keep` and those that are needed."""
        if keep < 1:
            raise DatabaseRefused("at least one base is kept")
        with self._answering():
            old = [base.database for base in self._bases()[keep:] if base.database not in (needed or set())]
            for database in old:
                del self.server.databases[database]
            return old

    def clone(self, template: str, name: str, *, fence: Callable[[], None] = lambda: None) -> Clone:
        """Copy a frozen database of ours."""
        check_ours(template)
        check_clone(name)
        with self._answering():
            self._require_marker()
            found = self.server.databases.get(template)
            if found is None:
                raise DatabaseRefused(f"the frozen database {template} is gone; {made_anew(template, self.name)}")
            if (found.installation, found.source) != (self._installation, self.name):
                raise DatabaseRefused(f"the frozen database {template} belongs to another Seatrial or source")
            if not found.frozen:
                raise DatabaseRefused(f"the database {template} is not frozen, so it cannot be a template")
            fence()
            self._release(name)
            self.server.databases[name] = _Stored(
                found.installation, found.source, found.owner, found.data_id, dict(found.rows), name=found.name
            )
            return Clone(name, "memory", 0.0)

    def login(self, database: str, *, role: str, owner: str, fence: Callable[[], None] = lambda: None) -> Login:
        """Make (or remake) the login role for a clone."""
        check_clone(database)
        check_clone(role)
        with self._answering():
            if self._clone(database).frozen:
                raise DatabaseRefused(f"the clone {database} is frozen")
            if owner not in self.server.owners:
                raise DatabaseRefused(f"there is no role {owner}")
            fence()
            self.server.roles[role] = database
            self.server.shut.discard(role)
            return Login("memory", 5432, database, role, secrets.token_urlsafe(24), self._limit)

    def freeze(self, database: str, *, fence: Callable[[], None] = lambda: None) -> None:
        """Refuse connections to a prepared clone, and give up its roles."""
        check_clone(database)
        with self._answering():
            found = self._clone(database)
            fence()
            found.frozen = True
            self._drop_roles(database)

    def drop(self, database: str, *, role: str | None = None, fence: Callable[[], None] = lambda: None) -> None:
        """Drop a clone of ours and its roles; safe to call twice."""
        check_clone(database)
        if role is not None:
            check_clone(role)
        with self._answering():
            fence()
            self._release(database)
            if role is not None:
                self.server.roles.pop(role, None)

    def made_for(self, run: int) -> list[str]:
        """List the clones and login roles that a run's legs and executions have."""
        ours = re.compile(rf"seatrial_(leg|x)_{re.escape(self._installation)}_r{run}_")
        with self._answering():
            return sorted(name for name in {*self.server.databases, *self.server.roles} if ours.match(name))

    def shut(self, role: str) -> None:
        """Let a login role of ours in no more."""
        check_clone(role)
        with self._answering():
            on = self.server.databases.get(self.server.roles.get(role, ""))
            if on is not None and on.installation == self._installation:
                self.server.shut.add(role)

    def sweep(self, wanted: Callable[[], set[str]]) -> list[str]:
        """Drop this installation's clones that nobody wants."""
        now = time.monotonic()
        keep = wanted()
        with self._answering():
            stale = [
                name
                for name, stored in self.server.databases.items()
                if name not in keep
                and not name.startswith("seatrial_base_")
                and (stored.installation, stored.source) == (self._installation, self.name)
                and stored.made_at < now
            ]
            for name in stale:
                self._release(name)
            return stale

    def check(self) -> SourceCheck:
        """Tell what speaks for and against using the source."""
        if not self.server.up:
            return SourceCheck(reachable=False, problems=(SourceProblem("memory:5432 does not answer", "start it"),))
        problems = []
        try:
            self.base()
        except DatabaseRefused as error:
            problems.append(SourceProblem(error.text, f"seatrial db bless {self.name}"))
        sizes = {base.database: base.size for base in self._bases()}
        marker = self.server.markers.get(self._database)
        lent = marker is None and (self._installation, self.name) in self.server.lent
        return SourceCheck(True, "memory", marker, tuple(problems), self._owner, "memory", 0.0, 0, sizes, lent)

    def stands(self, database: str, *, role: str) -> bool:
        """Tell whether a clone and its login role, which may log in, are there."""
        with self._answering():
            comes_in = role in self.server.roles and role not in self.server.shut
            return comes_in and database in self.server.databases

    def probe(self) -> MemoryProbe:
        """Open the watch on the link to the server."""
        return MemoryProbe(self.server)

    # ---- inner ---------------------------------------------------------------------------------------------

    def _answering(self) -> threading.RLock:
        if not self.server.up:
            raise DatabaseUnavailable(f"{self.name}: memory:5432 does not answer")
        return self.server.lock

    def _require_marker(self, *, lent: bool = True) -> None:
        found = self.server.markers.get(self._database)
        if found == PRODUCTION:
            raise DatabaseRefused(f"the database {self._database} is marked as production and is never used")
        if lent and (self._installation, self.name) in self.server.lent:
            return
        if found != VERIFICATION:
            raise DatabaseRefused(f"{self._database} is not marked; run: seatrial db bless {self.name}")

    def _bases(self) -> list[Base]:
        found = [
            Base(self.name, name, stored.data_id, stored.owner, stored.blessed_at, len(stored.rows), stored.name)
            for name, stored in self.server.databases.items()
            if name.startswith("seatrial_base_")
            and (stored.installation, stored.source) == (self._installation, self.name)
        ]
        return sorted(found, key=lambda base: base.data_id, reverse=True)

    def _clone(self, database: str) -> _Stored:
        found = self.server.databases.get(database)
        if found is None or found.installation != self._installation:
            raise DatabaseRefused(f"there is no clone {database} of this Seatrial")
        return found

    def _release(self, database: str) -> None:
        found = self.server.databases.get(database)
        if found is not None and found.installation != self._installation:
            raise DatabaseRefused(f"the database {database} belongs to another Seatrial on this server")
        self.server.databases.pop(database, None)
        self._drop_roles(database)

    def _drop_roles(self, database: str) -> None:
        self.server.roles = {role: on for role, on in self.server.roles.items() if on != database}


@dataclass
class MemoryRefresh:
    """A refresh that is under way; there is nothing to mask."""

    source: MemoryDatabases

    def finish(self, snapshot: str | None = None) -> Base:
        """Write the marker and freeze a snapshot of the new data."""
        source = self.source
        source.server.markers[source._database] = VERIFICATION
        base = source._freeze(snapshot)
        source.server.lent.discard((source._installation, source.name))
        return base


class MemoryProbe:
    """The watch on a MemoryServer."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def lost_between(self, start: float, end: float) -> bool:
        """Tell whether the server was down between two times (± PROBE_SLACK)."""
        return any(
            began <= end + PROBE_SLACK and (ended is None or ended >= start - PROBE_SLACK)
            for began, ended in self._server.lost
        )

    def close(self) -> None:
        """End the watch; safe to call twice."""
