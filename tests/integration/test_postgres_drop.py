"""Dropping what is ours while the server itself works in it, on real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from fixtures_postgres import Sample

from runner.adapters.postgres_clone import PostgresSource

# It is vacuumed at once, and slowly: a page each 0.1 s.
SLOW = """
CREATE TABLE big WITH (autovacuum_vacuum_insert_threshold = 1, autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)
AS SELECT generate_series(1, 200000) AS number
"""
AUTOVACUUM = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{}'"


@pytest.fixture
def eager(sample: Sample) -> Iterator[Sample]:
    """A server whose autovacuum looks every second."""
    sample.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'", "SELECT pg_reload_conf()")
    yield sample
    sample.execute("ALTER SYSTEM RESET autovacuum_naptime", "SELECT pg_reload_conf()", database="postgres")


def test_a_clone_that_the_server_vacuums_is_dropped_all_the_same(eager: Sample) -> None:
    """The workers of autovacuum are nobody's, so that a role without rights over others may not end them by force."""
    source = PostgresSource("v", eager.dsn, installation="eager")
    clone = "seatrial_x_r1_t1_e1"
    source.clone(source.bless().database, clone)
    eager.execute(SLOW, database=clone)
    while not eager.value(AUTOVACUUM.format(clone), "postgres"):
        time.sleep(0.05)
    source.drop(clone)
    assert clone not in eager.databases()
