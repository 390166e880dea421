"""A store with comparisons of an earlier version, brought up to date: what was recorded is read as before."""

from __future__ import annotations

import pytest
from fixtures_store import older_store
from hands import SPEC, Hands
from sqlalchemy import MetaData, inspect, select, text

from jobs.adapters.sql_engine import Database, open_engine
from jobs.adapters.sql_schema import comparisons, legs, runs, tasks, units
from jobs.adapters.sql_store import Store
from jobs.comparing import HARMFUL, Compared, UnitClass
from jobs.new_run import NewLeg
from jobs.overview import EVERY_UNIT, Wanted
from runner.model import Output, UnitResult, UnitState

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")
NAMES = ["acme/pl", "acme/deep/bs", "100%'/pl", "alone"]


def some_run(hands: Hands) -> int:
    """Do a compare run of which two units are compared and differ; the others are ready."""
    run = hands.submit(legs=(BASELINE,))
    for claim in (hands.take("w0"), hands.take("w1")):
        hands.prepared(claim, NAMES, batches=1)
    for claim in (hands.take("w0"), hands.take("w1")):
        digest = claim.task.leg[0].encode().hex() * 32
        results = [UnitResult(unit, UnitState.DONE, Output("x.csv", digest, 3), "", 1.0) for unit in NAMES]
        hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
    found = [
        (
            pair,
            Compared(pair.unit, pair.position, UnitClass.DIFFERENT, 1, 2.0 + pair.position, {"rows": {"changed": 1}}),
        )
        for pair in hands.store.compare.ready(run, 3)
    ]
    hands.store.compare.record(run, found)
    return run


def copied(source: Store, url: str) -> None:
    """Put records into tables that may lack columns."""
    database = Database(open_engine(url))
    old = MetaData()
    old.reflect(database.engine)
    with source.database.read() as reading, database.write() as writing:
        for table in (runs, legs, tasks, units, comparisons):
            there = old.tables[table.name]
            rows = [dict(row._mapping) for row in reading.execute(select(table))]
            kept = [{name: value for name, value in row.items() if name in there.columns} for row in rows]
            writing.execute(there.insert(), kept)
        if not database.is_sqlite:
            writing.execute(text("SELECT setval(pg_get_serial_sequence('runs', 'id'), 100)"))
            writing.execute(text("SELECT setval(pg_get_serial_sequence('tasks', 'id'), 100)"))
    database.engine.dispose()


def test_comparisons_of_the_version_before_are_read_and_go_on(empty_url: str) -> None:
    with older_store(empty_url, "0008"):
        pass
    source = Hands(Store.in_memory())
    run = some_run(source)
    copied(source.store, empty_url)
    store = Store.open(empty_url)
    try:
        views = store.compare_views
        assert [one.unit for one in views.by_position(run, EVERY_UNIT, after=-1, limit=9)] == NAMES[:3]
        found = views.by_position(run, Wanted(HARMFUL, tenant="acme/deep", report="bs"), after=-1, limit=9)
        assert [one.unit for one in found] == ["acme/deep/bs"]
        heat = views.heat_map(run, first=0, limit=60)
        assert {(part.name, part.harmful) for part in heat.tenants} == {("acme", 1), ("acme/deep", 1), ("100%'", 1)}
        assert views.overview(run).harmful == 3
        # What the columns of later versions are read for.
        assert store.groups.list(run) == []
        assert store.runs.get(run).units_different == 3
        assert [leg.reused_from for leg in store.latency.of(run, ratio=1.5, floor=0.1, limit=9).legs] == [None, None]
        # The run goes on: what was left is compared, and gets its tenant and report.
        [pair] = store.compare.ready(run, 9)
        store.compare.record(run, [(pair, Compared(pair.unit, pair.position, UnitClass.SAME))])
        assert views.counts(run)[0] == {UnitClass.DIFFERENT: 3, UnitClass.SAME: 1}
        assert [one.unit for one in views.by_position(run, Wanted(tenant=""), after=-1, limit=9)] == ["alone"]
        # And a new one begins.
        hands = Hands(store)
        assert hands.submit(legs=(BASELINE,)) > run
    finally:
        store.close()
        source.store.close()


def test_tables_made_by_migrations_are_those_of_the_schema(empty_url: str) -> None:
    with older_store(empty_url, "0008"):
        pass
    store = Store.open(empty_url)
    try:
        seen = inspect(store.database.engine)
        for table in (runs, legs, tasks, units, comparisons):
            assert {column["name"] for column in seen.get_columns(table.name)} == set(table.columns.keys())
            named = {str(index["name"]) for index in seen.get_indexes(table.name)}
            assert {str(index.name) for index in table.indexes} <= named
    finally:
        store.close()


@pytest.mark.parametrize(
    ("revision", "written"),
    [
        ("0021", [(1.1, 1.1), (1.05, 1.051), (0.9, 1.2), (2.0, 5.0), (None, None)]),
        ("0022", [(1.1, 1.1), (1.05, 1.051), (1.2, 0.9), (5.0, 2.0), (None, None)]),  # where they lie, or nowhere
    ],
)
def test_ratios_are_the_least_and_the_greatest(
    empty_url: str, revision: str, written: list[tuple[float | None, float | None]]
) -> None:
    insert = text(
        "INSERT INTO causes (run, key, unit, pattern, what, count, ratio_low, ratio_high)"
        " VALUES (1, 'k', :unit, '*', 'value', 1, :low, :high)"
    )
    with older_store(empty_url, revision) as connection:
        connection.execute(
            insert, [{"unit": str(n), "low": low, "high": high} for n, (low, high) in enumerate(written)]
        )
    store = Store.open(empty_url)
    try:
        with store.database.read() as connection:
            found = connection.execute(text("SELECT ratio_low, ratio_high FROM causes ORDER BY unit")).all()
        assert [tuple(row) for row in found] == [(1.1, 1.1), (1.05, 1.051), (0.9, 1.2), (2.0, 5.0), (None, None)]
    finally:
        store.close()
