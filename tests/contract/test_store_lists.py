"""A list of many runs costs no more on its last page than on its first, and no more when it is narrowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hands import Hands
from sqlalchemy import event

from jobs.adapters.sql_schema import legs, runs
from jobs.adapters.sql_store import Store
from jobs.run import Page, RunFilter

COUNT, LIMIT = 10_000, 50
RARE = 150  # one of so many runs is Rin's


class Meter:
    """A store of many ended runs, and how much work its database has to list them."""

    def __init__(self) -> None:
        self.hands = Hands(Store.in_memory())
        self.steps = self.statements = 0
        self._fill()
        with self.hands.store.database.read() as connection:  # the one connection that a store in memory has
            raw = connection.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(self._step, 10)
        event.listen(self.hands.store.database.engine, "before_cursor_execute", self._statement)

    def _fill(self) -> None:
        hands = self.hands
        first = hands.submit()
        hands.store.runs.cancel(first, "mio")
        with hands.store.database.write() as connection:
            run = dict(connection.execute(runs.select().where(runs.c.id == first)).mappings().one())
            leg = dict(connection.execute(legs.select().where(legs.c.run == first)).mappings().one())
            numbers = range(first + 1, first + COUNT)
            users = {number: "rin" if number % RARE == 0 else "mio" for number in numbers}
            connection.execute(runs.insert(), [run | {"id": number, "user": users[number]} for number in numbers])
            connection.execute(legs.insert(), [leg | {"run": number} for number in numbers])

    def _step(self) -> int:
        self.steps += 1
        return 0

    def _statement(self, *_: object) -> None:
        self.statements += 1

    def page(self, wanted: RunFilter, before: int | None = None) -> tuple[Page, tuple[int, int]]:
        """Read a page; give it, and its work: tens of steps of SQLite's machine, and statements."""
        self.steps = self.statements = 0
        page = self.hands.store.runs.page(wanted, before=before, after=None, limit=LIMIT)
        return page, (self.steps, self.statements)

    def walk(self, wanted: RunFilter) -> tuple[list[int], list[tuple[int, int]]]:
        """Read page after page; give the runs, and the work of each page."""
        found, cost = self.page(wanted)
        seen, work = [run.id for run in found.runs], [cost]
        while found.next is not None:
            found, cost = self.page(wanted, found.next)
            seen += [run.id for run in found.runs]
            work.append(cost)
        return seen, work


@pytest.fixture(scope="module")
def meter() -> Iterator[Meter]:
    one = Meter()
    yield one
    one.hands.store.close()


def test_a03_ten_thousand_runs(meter: Meter) -> None:
    """Every page is as much work for the database as every other, and each run is on one of them."""
    seen, work = meter.walk(RunFilter())
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == COUNT
    most, least = max(work), min(work[:-1])
    assert most[0] <= least[0] * 1.1 + 10, "work in ten steps of SQLite's machine"
    assert most[1] == least[1]


def test_a03_the_few_of_one_user_among_them(meter: Meter) -> None:
    """A page that is narrowed is no more work than one that is not: it reads no run that it does not show."""
    _, work = meter.page(RunFilter())
    seen, narrowed = meter.walk(RunFilter(user="rin"))
    assert len(seen) == COUNT // RARE
    assert len(narrowed) == 2
    assert max(narrowed)[0] <= work[0] * 1.1 + 10, "work in ten steps of SQLite's machine"
    assert max(narrowed)[1] == work[1]
