"""Units of accepted groups are marked in short transactions, and whoever dies between two of them is helped out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hands import Hands
from hands_compare import ASKED, CODE, TAX, Trial, tax
from sqlalchemy import Connection, func, select

from jobs.accepting import Asked
from jobs.adapters import sql_marking
from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_engine import Database
from jobs.adapters.sql_schema import comparisons
from jobs.causes import Share
from runner.errors import StoreUnavailable

UNITS = [f"t{at}/pl" for at in range(7)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_marking, "SLICE", 2)
    monkeypatch.setattr(sql_marking, "BREATH_SECONDS", 0.0)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the store go away after so many slices; a negative number lets it live again."""
    whole = sql_marking.advance
    left = [-1]

    def advance(database: Database, run: int) -> bool:
        if not left[0]:
            raise StoreUnavailable("gone")
        left[0] -= 1
        return whole(database, run)

    monkeypatch.setattr(sql_marking, "advance", advance)

    def set_to(slices: int) -> None:
        left[0] = slices

    return set_to


def die(dying: Callable[[int], None], slices: int, act: Callable[[], object]) -> None:
    dying(slices)
    with pytest.raises(StoreUnavailable):
        act()
    dying(-1)


def trial(hands: Hands) -> Trial:
    return Trial(hands, {unit: [tax()] for unit in UNITS})


def test_no_transaction_marks_more_than_a_slice(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trial(hands).end()
    marked = []
    query = select(func.count()).where(comparisons.c.run == one.run, comparisons.c.accepted)
    whole = hands.store.database.write

    @contextmanager
    def write() -> Iterator[Connection]:
        with whole() as connection:
            before = connection.execute(query).scalar_one()
            yield connection
            marked.append(abs(connection.execute(query).scalar_one() - before))

    monkeypatch.setattr(hands.store.database, "write", write)
    one.accept()
    assert (max(marked), sum(marked), one.stands) == (2, 7, ("passed", 7, 7, 1))
    marked.clear()
    one.withdraw()
    assert (max(marked), sum(marked), one.stands) == (2, 7, ("different", 7, 0, 0))


@pytest.mark.parametrize("slices", [0, 1, 3])
def test_what_was_half_accepted_is_finished_by_others(hands: Hands, dying: Callable[[int], None], slices: int) -> None:
    one = trial(hands).end()
    die(dying, slices + 1, one.accept)  # the first one finds nothing to go on with
    assert len(one.marked()) == 2 * slices
    assert one.stands == ("different", 7, 0, 0), "until all are marked"
    assert one.told("accept") == []
    hands.store.acceptances.go_on()
    assert (one.stands, len(one.marked())) == (("passed", 7, 7, 1), 7)
    [told] = one.told("accept")
    assert (told["user"], told["name"], told["from"], told["verdict"]) == ("rin", ASKED.name, "different", "passed")
    hands.store.acceptances.go_on()
    assert len(one.told("accept")) == 1
    die(dying, slices + 1, one.withdraw)
    assert one.stands == ("passed", 7, 7, 1)
    hands.store.acceptances.go_on()
    assert (one.stands, one.marked()) == (("different", 7, 0, 0), set())
    assert one.told("withdraw")[0]["user"] == "mio"


def test_who_comes_next_finishes_it_first(hands: Hands, dying: Callable[[int], None]) -> None:
    causes = {unit: [tax()] for unit in UNITS} | {"x/bs": [Share(CODE, 1)]}
    one = Trial(hands, causes).end()
    die(dying, 2, one.accept)
    one.accept(CODE, Asked("Tax codes", "Asked for."))
    assert one.stands == ("passed", 8, 8, 2)
    assert [told["units"] for told in one.told("accept")] == [7, 8]
    die(dying, 1, lambda: one.withdraw(CODE))
    one.withdraw()
    assert (one.stands, one.marked()) == (("different", 8, 0, 0), set())
    assert [told["name"] for told in one.told("withdraw")] == ["Tax codes", ASKED.name]


def test_a_run_ends_when_all_of_it_is_marked(hands: Hands, dying: Callable[[int], None]) -> None:
    trial(hands).end().accept()
    later = trial(hands).compare()
    die(dying, 2, lambda: hands.store.compare.close(later.run))
    assert later.stands == (None, 7, 7, 1)
    later.end()
    assert later.stands == ("passed", 7, 7, 1)
    assert len(later.told("accepted")) == 1


def test_units_that_are_compared_again_meanwhile_are_counted_once(hands: Hands, dying: Callable[[int], None]) -> None:
    one = trial(hands).compare()
    die(dying, 2, one.accept)
    with hands.store.database.write() as connection:
        forget(connection, one.run, names=UNITS[:3])
    one.compare()
    hands.store.acceptances.go_on()
    assert one.stands == (None, 7, 7, 1)
    assert one.end().stands == ("passed", 7, 7, 1)
    assert TAX.key in hands.store.acceptances.of_run(one.run)


def test_a_unit_that_was_cut_stays_different(hands: Hands) -> None:
    one = Trial(hands, {unit: [tax()] for unit in UNITS}, cut=UNITS[2:4]).end()
    one.accept()
    assert (one.stands, one.marked()) == (("different", 7, 5, 1), {*UNITS[:2], *UNITS[4:]})
