"""A PostgreSQL of records that takes no writes any more, as after a failover: away, until another one is found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from fixtures_postgres import end_server, start_server
from hands import Hands
from sqlalchemy import text

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from jobs.adapters.sql_store import Store
from runner.errors import StoreUnavailable


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    server = start_server("pg-demoted")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE records")
    yield server
    end_server(server)


@pytest.fixture
def hands(own_postgres: EmbeddedPostgres) -> Iterator[Hands]:
    with closing(Store.open(own_postgres.dsn("records"))) as store:
        yield Hands(store)
    demote(own_postgres, "off")


def demote(server: EmbeddedPostgres, setting: str = "on") -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}".encode())
        admin.execute(b"SELECT pg_reload_conf()")
    deadline = time.monotonic() + 20
    while True:  # the server's other processes read it a moment later
        with psycopg.connect(server.dsn()) as link:
            if link.execute(b"SHOW default_transaction_read_only").fetchone() == (setting,):
                break
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(hands: Hands) -> StoreUnavailable:
    """Submit until the link hears of it; gives the error."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            hands.submit()
        except StoreUnavailable as error:
            return error
        time.sleep(0.02)
    raise AssertionError("it is written all the same")


def test_links_to_a_server_that_takes_no_writes_are_parted_with(hands: Hands, own_postgres: EmbeddedPostgres) -> None:
    hands.submit()
    demote(own_postgres)
    assert "read-only" in refused(hands).text
    with pytest.raises(StoreUnavailable, match="read-only"):
        hands.submit()  # by a link that was made since
    with pytest.raises(StoreUnavailable), hands.store.database.read() as connection:
        connection.execute(text("SELECT 1"))
    demote(own_postgres, "off")
    assert hands.submit(), "without anything being started again"


def test_a_store_on_such_a_server_is_not_opened(hands: Hands, own_postgres: EmbeddedPostgres) -> None:
    demote(own_postgres)
    with pytest.raises(StoreUnavailable, match="read-only"):
        Store.open(own_postgres.dsn("records"))
