"""A list of many runs costs no more on its last page than on its first."""

from __future__ import annotations

from hands import Hands
from sqlalchemy import event

from jobs.adapters.sql_schema import legs, runs
from jobs.adapters.sql_store import Store
from jobs.run import RunFilter

COUNT, PAGE = 10_000, 50


def many(hands: Hands) -> None:
    """Write so many ended runs."""
    first = hands.submit()
    hands.store.runs.cancel(first, "mio")
    with hands.store.database.write() as connection:
        run = dict(connection.execute(runs.select().where(runs.c.id == first)).mappings().one())
        leg = dict(connection.execute(legs.select().where(legs.c.run == first)).mappings().one())
        numbers = range(first + 1, first + COUNT)
        connection.execute(runs.insert(), [run | {"id": number} for number in numbers])
        connection.execute(legs.insert(), [leg | {"run": number} for number in numbers])


def test_a03_ten_thousand_runs() -> None:
    """Every page is as much work for the database as every other, and each run is on one of them."""
    hands = Hands(Store.in_memory())
    many(hands)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with hands.store.database.read() as connection:  # the one connection that a store in memory has
        raw = connection.connection.driver_connection
    assert raw is not None
    raw.set_progress_handler(count, 10)
    statements = 0

    @event.listens_for(hands.store.database.engine, "before_cursor_execute")
    def executed(*_: object) -> None:
        nonlocal statements
        statements += 1

    seen: list[int] = []
    work: list[tuple[int, int]] = []
    before: int | None = None
    while True:
        steps = statements = 0
        page = hands.store.runs.page(RunFilter(), before=before, after=None, limit=PAGE)
        work.append((steps, statements))
        seen += [run.id for run in page.runs]
        if page.next is None:
            break
        before = page.next
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == COUNT
    most, least = max(work), min(work[:-1])
    assert most[0] <= least[0] * 1.1 + 10, "work in ten steps of SQLite's machine"
    assert most[1] == least[1]
