"""A store that knows no sources of legs yet gets them from its runs."""

from __future__ import annotations

from fixtures_store import older_store
from sqlalchemy import text

from jobs.adapters.sql_store import Store

RUN = (
    'INSERT INTO runs (project, ref, "commit", baseline_commit, "user", note, priority, pool, options, state, created_at,'
    " search, units_done, units_failed, units_different, attempts, cancel_requested, database) VALUES"
    " ('p', 'main', 'c', 'b', 'mio', '', 0, 'local', '{}', 'done', 1, 'main', 0, 0, 0, 0, false, :database)"
)
LEG = (
    'INSERT INTO legs (run, name, ref, "commit", subject, author, spec_source, spec_text, spec_digest, prepared, data_id)'
    " VALUES (:run, :name, 'main', 'c', 's', 'a', 'f', 'version: 1', 'd', false, 'd1')"
)


def test_legs_of_older_runs_have_their_runs_source(empty_url: str) -> None:
    with older_store(empty_url, "0010") as connection:
        for run, source in ((1, "books"), (2, None)):
            connection.execute(text(RUN), {"database": source})
            for name in ("baseline", "candidate"):
                connection.execute(text(LEG), {"run": run, "name": name})
    store = Store.open(empty_url)
    assert [(leg.database, leg.snapshot) for leg in store.runs.get(1).legs] == [("books", None)] * 2
    assert [leg.database for leg in store.runs.get(2).legs] == [None, None]
    assert not store.runs.get(1).two_databases
    assert store.snapshots.uses("books", ["d1"]).runs == {"d1": [1]}
    store.close()
