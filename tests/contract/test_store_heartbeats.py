"""When sweeper and comparer were last heard of, in the store."""

from __future__ import annotations

from datetime import timedelta

from fixtures_store import older_store
from hands import Hands
from sqlalchemy import inspect, text

from jobs.adapters.sql_schema import heartbeats
from jobs.adapters.sql_store import Store
from jobs.heartbeats import COMPARER, SILENT_SECONDS, SWEEPER


def test_nobody_is_heard_before_the_first_sign(hands: Hands) -> None:
    found = hands.store.heartbeats.signs()
    assert (found.is_silent(SWEEPER), found.is_silent(COMPARER)) == (True, True)
    assert found.put_off == {}


def test_each_is_heard_by_its_own_sign_for_a_while(hands: Hands) -> None:
    beats = hands.store.heartbeats
    beats.beat(SWEEPER)
    beats.beat(SWEEPER)
    found = beats.signs()
    assert (found.is_silent(SWEEPER), found.is_silent(COMPARER)) == (False, True)
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE heartbeats SET seen_at = seen_at - :long"), {"long": SILENT_SECONDS + 1})
    late = beats.signs()
    assert late.is_silent(SWEEPER)
    assert timedelta(0) <= late.now - found.now


def test_the_comparer_tells_what_it_has_put_off_until_it_has_not(hands: Hands) -> None:
    beats = hands.store.heartbeats
    beats.beat(COMPARER, {7: "No space left on device"})
    assert beats.signs().put_off == {7: "No space left on device"}
    beats.beat(SWEEPER)
    assert beats.signs().put_off == {7: "No space left on device"}
    beats.beat(COMPARER)
    assert beats.signs().put_off == {}


def test_a_store_of_the_version_before_gets_the_table(empty_url: str) -> None:
    with older_store(empty_url, "0017"):
        pass
    store = Store.open(empty_url)
    try:
        store.heartbeats.beat(COMPARER, {1: "away"})
        assert store.heartbeats.signs().put_off == {1: "away"}
        found = {column["name"] for column in inspect(store.database.engine).get_columns("heartbeats")}
        assert found == set(heartbeats.columns.keys())
    finally:
        store.close()
