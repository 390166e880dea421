"""The launcher of the embedded PostgreSQL: on root's and on an ordinary user's machine, again and again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_postgres import free_port

from jobs.adapters.embedded_postgres import EmbeddedPostgres, packaged_bin
from runner.errors import DatabaseUnavailable


@pytest.fixture
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="seatrial-embedded-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_starting_stopping_and_starting_again_keeps_the_data(home: Path) -> None:
    server = EmbeddedPostgres(home / "deep" / "data", port=free_port())
    assert not server.running()
    assert not server.ready()
    server.start()
    server.start()
    assert server.running()
    assert server.ready()
    with psycopg.connect(server.dsn(), autocommit=True) as session:
        session.execute("CREATE TABLE kept (a int)")
        encoding = session.execute("SHOW server_encoding").fetchone()
        locale = session.execute("SELECT datcollate FROM pg_database WHERE datname = 'postgres'").fetchone()
    assert (encoding, locale) == (("UTF8",), ("C.UTF-8",))
    server.stop()
    server.stop()
    assert not server.running()
    moved = EmbeddedPostgres(server.data, port=free_port(), settings={"work_mem": "7MB", "cluster_name": "it's"})
    moved.start()
    with psycopg.connect(moved.dsn()) as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert session.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert session.execute("SHOW cluster_name").fetchone() == ("it's",)
    moved.stop(immediate=True)


def test_it_runs_unprivileged_and_lets_nobody_in_without_a_password(home: Path) -> None:
    server = EmbeddedPostgres(home / "data", port=free_port())
    server.start()
    pid = int((server.data / "postmaster.pid").read_text().split("\n", 1)[0])
    assert os.stat(f"/proc/{pid}").st_uid != 0
    assert (server.data.stat().st_mode & 0o777) == 0o700
    assert (home / "data.password").stat().st_mode & 0o077 == 0
    for host in ("127.0.0.1", str(server.sockets)):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=host, port=server.port, user="postgres", dbname="postgres")
    with psycopg.connect(
        host=str(server.sockets), port=server.port, user="postgres", dbname="postgres", password=server.password
    ) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    server.stop()


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    first = EmbeddedPostgres(home / "first", port=free_port())
    first.start()
    second = EmbeddedPostgres(home / "second", port=first.port)
    with pytest.raises(DatabaseUnavailable, match=str(first.port)):
        second.start(timeout=10)
    assert first.ready()
    first.stop()


def test_a_server_that_was_never_started_has_no_password(home: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="never started"):
        EmbeddedPostgres(home / "data", port=free_port()).dsn()


def test_an_account_that_is_not_there_is_named(home: Path) -> None:
    if os.geteuid() != 0:
        EmbeddedPostgres(home / "data", port=free_port(), account="no_such_account")
        return  # not root: it runs as whoever we are
    with pytest.raises(DatabaseUnavailable, match="no_such_account"):
        EmbeddedPostgres(home / "data", port=free_port(), account="no_such_account")


def test_programs_that_the_account_cannot_reach_are_copied_and_a_closed_directory_is_named(home: Path) -> None:
    if os.geteuid() != 0:
        return  # nothing changes hands
    closed = home / "closed"
    shutil.copytree(packaged_bin().parent.parent, closed / "embedded_postgres")
    libraries = packaged_bin().parent.parent.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)
    programs = closed / "embedded_postgres" / "pginstall" / "bin"
    port = free_port()
    EmbeddedPostgres(home / "data", port=port, bin_dir=programs).stop()  # there is nothing yet
    server = EmbeddedPostgres(home / "data", port=port, bin_dir=programs)
    server.start()
    assert server.ready()
    EmbeddedPostgres(home / "data", port=port, bin_dir=programs).stop()  # by another than who started it
    assert not server.running()
    with pytest.raises(DatabaseUnavailable, match="cannot enter"):
        EmbeddedPostgres(closed / "data", port=free_port()).start()
