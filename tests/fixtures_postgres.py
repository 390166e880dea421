"""Fixtures: real PostgreSQL servers (the embedded one, and the host's own PostgreSQL 15 where it is installed)."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from jobs.adapters.embedded_postgres import EmbeddedPostgres, packaged_bin

# PostgreSQL 15 is the oldest that is supported and differs in what CREATEROLE may do; it is tried where it is at hand.
OLDEST = Path("/usr/lib/postgresql/15/bin")
SERVERS = ["18", *(["15"] if OLDEST.exists() else [])]

SAMPLE = """
CREATE TABLE public.account (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO public.account SELECT g, 'account ' || g FROM generate_series(1, 1000) g;
CREATE SCHEMA tenant_001;
CREATE TABLE tenant_001.entry (id int PRIMARY KEY, amount numeric);
INSERT INTO tenant_001.entry SELECT g, g * 1.5 FROM generate_series(1, 100) g;
"""


# Below those that the kernel itself gives away, and other ones in each of two test processes that run side by side: what
# is free when it is chosen is then still free when a server has got ready to listen there.
_ODD = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 2
_PORTS = itertools.count(12_000 + 10_000 * _ODD + secrets.randbelow(5_000))


def free_port() -> int:
    """Give a port of this host at which nobody listens; each one once."""
    while True:
        port = next(_PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@dataclass
class Sample:
    """A verification database as an admin makes it ready: Seatrial's role, the application's, sample data."""

    server: EmbeddedPostgres
    database: str
    seatrial: str
    owner: str
    password: str = field(repr=False)

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.database, user=self.seatrial, password=self.password)

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Open a session that has ended at the server, too, when it is over: one on the source would be in the way."""
        with psycopg.connect(self.server.dsn(database or self.database), autocommit=True) as connection:
            server = Path(f"/proc/{connection.info.backend_pid}")
            yield connection
        deadline = time.monotonic() + 30
        while server.exists():
            assert time.monotonic() < deadline, "the server does not let go of a session"
            time.sleep(0.002)

    def execute(self, *statements: str, database: str | None = None) -> None:
        with self.admin(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def value(self, statement: str, database: str | None = None) -> object:
        with self.admin(database) as connection:
            row = connection.execute(statement.encode()).fetchone()
            return row[0] if row else None

    def databases(self) -> set[str]:
        with self.admin("postgres") as connection:
            return {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database")}

    def roles(self) -> set[str]:
        with self.admin("postgres") as connection:
            return {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles")}


def start_server(name: str, *, bin_dir: Path | None = None, root: Path | None = None) -> EmbeddedPostgres:
    """Start a server in a new directory that its account can enter."""
    home = Path(tempfile.mkdtemp(prefix=f"seatrial-{name}-", dir=root))
    home.chmod(0o755)
    server = EmbeddedPostgres(
        home / "data", port=free_port(), bin_dir=bin_dir,
        settings={"fsync": "off", "shared_buffers": "32MB", "max_prepared_transactions": "4", "log_statement": "all"},
    )  # fmt: skip
    server.start()
    return server


def end_server(server: EmbeddedPostgres) -> None:
    server.stop(immediate=True)
    shutil.rmtree(server.data.parent)


@pytest.fixture(scope="session", params=SERVERS)
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server, of each version that is at hand."""
    server = start_server(f"pg{request.param}", bin_dir=OLDEST if request.param == "15" else packaged_bin())
    yield server
    end_server(server)


@pytest.fixture(scope="session")
def postgres18() -> Iterator[EmbeddedPostgres]:
    """The embedded PostgreSQL 18 alone, for tests in which the server's version plays no part."""
    server = start_server("pg18-only")
    yield server
    end_server(server)


def make_sample(server: EmbeddedPostgres) -> Sample:
    """Make a verification database with roles of its own, as docs/databases.md tells an admin to."""
    tag = secrets.token_hex(3)
    sample = Sample(server, f"verification_{tag}", f"seatrial_{tag}", f"app_{tag}", secrets.token_hex(8))
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                sql.Identifier(sample.seatrial), sql.Literal(sample.password)
            )
        )
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(sample.owner)))
        admin.execute(
            sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(
                sql.Identifier(sample.owner), sql.Identifier(sample.seatrial)
            )
        )
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(sample.database), sql.Identifier(sample.seatrial)
            )
        )
        admin.execute(
            sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}").format(
                sql.Identifier(sample.database), sql.Identifier(sample.owner)
            )
        )
    with sample.admin() as admin:
        admin.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(sql.Identifier(sample.owner)))
        admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(sample.owner)))
        admin.execute(SAMPLE.encode())
    return sample


def drop_sample(sample: Sample) -> None:
    """Drop the sample with all that was made by its Seatrial role."""
    with sample.admin("postgres") as admin:
        mine = admin.execute(
            "SELECT datname FROM pg_database WHERE datdba = %s::regrole", (sample.seatrial,)
        ).fetchall()
        for (name,) in mine:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))
        made = admin.execute(
            "SELECT DISTINCT m.member::regrole::text FROM pg_auth_members m WHERE m.roleid = %s::regrole",
            (sample.owner,),
        ).fetchall()
        for (name,) in made:
            if str(name).startswith("seatrial_x_"):
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(name))))
        for name in (sample.seatrial, sample.owner):
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def sample(postgres: EmbeddedPostgres) -> Iterator[Sample]:
    made = make_sample(postgres)
    yield made
    drop_sample(made)


@pytest.fixture
def sample18(postgres18: EmbeddedPostgres) -> Iterator[Sample]:
    made = make_sample(postgres18)
    yield made
    drop_sample(made)


def through(door: Path, database: str = "verification", user: str = "seatrial", **more: object) -> str:
    """Give the conninfo that branch code has inside of a workspace."""
    return make_conninfo(host=str(door), dbname=database, user=user, **{"connect_timeout": 10, **more})


def is_root() -> bool:
    return os.geteuid() == 0


class Proxy:
    """A TCP road to a port of this host that can be cut, mended, cut for a moment, or hang without a word."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._up = True
        self._hung = threading.Event()
        self._pairs: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._listener.close()
        self._drop()

    def through(self, dsn: str) -> str:
        return re.sub(r"@[^/]+/", f"@127.0.0.1:{self.port}/", dsn)

    def cut(self) -> None:
        self._up = False
        self._drop()

    def hang(self) -> None:
        self._hung.set()

    def mend(self) -> None:
        self._up = True
        self._hung.clear()

    def blink(self) -> None:
        self._drop()

    def _drop(self) -> None:
        for end in list(self._pairs):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self._up:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._pairs |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                while self._hung.is_set():
                    time.sleep(0.05)
                other.sendall(data)
        except OSError:
            pass
        finally:
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
            self._pairs.discard(one)
            one.close()
