"""Fixtures: the store on SQLite (file and memory) and PostgreSQL, each with hands; a Valkey of one's own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from hands import Hands
from sqlalchemy import Connection

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.adapters.rq_doorbell import RqDoorbell, connect
from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_schema import metadata
from jobs.adapters.sql_store import MIGRATIONS, Store
from jobs.cli_server import valkey_command


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store in a file, to copy."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgres_store_url(postgres18: EmbeddedPostgres) -> str:
    """A database for records on the embedded server."""
    with psycopg.connect(postgres18.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE seatrial_records")
    return postgres18.dsn("seatrial_records")


@pytest.fixture(scope="session")
def postgres_store(postgres_store_url: str) -> Iterator[Store]:
    store = Store.open(postgres_store_url)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """The store on each of its backends."""
    yield from make_hands(request, request.param)


@pytest.fixture(params=["sqlite", "postgres"])
def shared_hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    """The stores that several processes can share."""
    yield from make_hands(request, request.param)


def make_hands(request: pytest.FixtureRequest, backend: str) -> Iterator[Hands]:
    if backend == "memory":
        store = Store.in_memory()
    elif backend == "sqlite":
        path = request.getfixturevalue("tmp_path") / "seatrial.db"
        shutil.copy(request.getfixturevalue("migrated"), path)
        store = Store.open(f"sqlite:///{path}")
    else:
        store = request.getfixturevalue("postgres_store")
        with store.database.write() as connection:
            for table in metadata.tables.values():
                connection.execute(table.delete())
    yield Hands(store)
    if backend != "postgres":
        store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a store, in which there is nothing yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new/seatrial.db"
        return
    server: EmbeddedPostgres = request.getfixturevalue("postgres18")
    name = f"seatrial_empty_{secrets.token_hex(3)}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield server.dsn(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def older_store(url: str, revision: str) -> Iterator[Connection]:
    """Make the tables of an earlier version, to be filled by this connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with closing(Database(open_engine(url))) as database, database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        yield connection


class Valkey:
    """An embedded Valkey as `seatrial up` starts it, that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._options: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [*valkey_command(self.socket), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while self.bell().ping() is None:
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(0.02)

    def bell(self) -> RqDoorbell:
        return RqDoorbell(connect(self.url))

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            os.kill(self.process.pid, number)
            self.process.wait(10)
            self.process = None


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A running Valkey."""
    home = Path(tempfile.mkdtemp(prefix="seatrial-valkey-"))
    server = Valkey(home)
    server.start()
    yield server
    server.end()
    shutil.rmtree(home)
