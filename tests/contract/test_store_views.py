"""What people read of a compare run, on each store: maps, lists and sums give the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hands import SPEC, Hands

from jobs.comparing import HARMFUL, Compared, Pair, Side, UnitClass
from jobs.latency import is_slower
from jobs.new_run import NewLeg
from jobs.overview import EVERY_UNIT, HeatMap, Wanted
from runner.model import Output, UnitResult, UnitState

K = UnitClass
BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")
# In the order of the lists. Capitals, signs and other letters sort in their own way in each database.
UNITS: Mapping[str, tuple[UnitClass, float | None]] = {
    "acme/pl": (K.DIFFERENT, 5.0),
    "acme/bs": (K.SAME, None),
    "Zeta/pl": (K.DIFFERENT, 50.0),
    "Zeta/tax": (K.CANDIDATE_FAILED, None),
    "Österreich/pl": (K.EQUIVALENT, 0.001),
    "100%/pl": (K.DIFFERENT, 50.0),
    "1000/pl": (K.SAME, None),
    "a_b/pl": (K.NEW, None),
    "aXb/pl": (K.MISSING, None),
    "alone": (K.BOTH_FAILED, None),
}


def summary(kind: UnitClass, delta: float | None) -> dict[str, Any]:
    if kind is not K.DIFFERENT:
        return {}
    return {"changes": [{"column": "amount", "changed": 2, "tolerated": 0, "delta": delta, "kinds": {"value": 2}}]}


def of(hands: Hands) -> int:
    """Do a run whose units have these classes."""
    run = hands.submit(legs=(BASELINE,))
    claims = {claim.task.leg: claim for claim in (hands.take("w0"), hands.take("w1"))}
    for claim in claims.values():
        hands.prepared(claim, list(UNITS), batches=1)
    claims = {claim.task.leg: claim for claim in (hands.take("w0"), hands.take("w1"))}
    found = []
    for leg, claim in claims.items():
        results = [
            UnitResult(unit, UnitState.DONE, Output("x.csv", leg[0].encode().hex() * 32, 3), "", 1.0) for unit in UNITS
        ]
        hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
    for pair in hands.store.compare.ready(run, 100):
        kind, delta = UNITS[pair.unit]
        found.append((pair, Compared(pair.unit, pair.position, kind, 1, delta, summary(kind, delta))))
    assert len(found) == len(UNITS)
    hands.store.compare.record(run, found)
    return run


@pytest.fixture
def run(hands: Hands) -> int:
    return of(hands)


def names(found: list[Compared]) -> list[str]:
    return [one.unit for one in found]


def test_the_run_from_above(hands: Hands, run: int) -> None:
    found = hands.store.compare_views.overview(run)
    assert (found.compared, found.harmful) == (10, 6)
    assert [(part.name, part.harmful, part.total) for part in found.reports][:1] == [("pl", 4, 7)]
    assert [(part.name, part.harmful, part.total) for part in found.tenants][:1] == [("Zeta", 2, 2)]
    assert {part.name for part in found.tenants} == {"Zeta", "acme", "100%", "aXb", ""}
    [column] = found.columns
    assert (column.column, column.units, column.cells, column.delta) == ("amount", 3, 6, 50.0)
    assert names(list(found.largest)) == ["100%/pl", "Zeta/pl", "acme/pl"]


def test_the_map_comes_in_pages_that_leave_out_nothing(hands: Hands, run: int) -> None:
    read = hands.store.compare_views.heat_map
    whole = read(run, first=0, limit=60)
    assert (whole.whole, whole.differing, whole.more_reports) == (True, 5, 0)
    assert whole.tenants[0].name == "Zeta"
    assert whole.reports == ("alone", "bs", "pl", "tax")
    assert whole.cells["Zeta", "tax"] is K.CANDIDATE_FAILED
    assert whole.cells["", "alone"] is K.BOTH_FAILED
    assert {part.name for part in whole.tenants} == {unit.rpartition("/")[0] for unit in UNITS}
    pages: list[HeatMap] = [read(run, first=first, limit=2) for first in (0, 2, 4)]
    shown = [part.name for page in pages for part in page.tenants]
    assert shown == [part.name for part in whole.tenants[:5]]
    assert not any(page.whole for page in pages)
    assert read(run + 1, first=0, limit=60) == HeatMap()


@pytest.mark.parametrize(
    ("wanted", "units"),
    [
        (EVERY_UNIT, list(UNITS)),
        (Wanted((K.SAME, K.NEW)), ["acme/bs", "1000/pl", "a_b/pl"]),
        (Wanted(text="öSTERR"), ["Österreich/pl"]),
        (Wanted(text="0%"), ["100%/pl"]),
        (Wanted(text="A_B"), ["a_b/pl"]),
        (Wanted(HARMFUL, report="pl"), ["acme/pl", "Zeta/pl", "100%/pl", "aXb/pl"]),
        (Wanted(tenant=""), ["alone"]),
        (Wanted(HARMFUL, "pl", "Zeta", "pl"), ["Zeta/pl"]),
        (Wanted(text="nothing"), []),
    ],
)
def test_lists_are_narrowed_and_paged(hands: Hands, run: int, wanted: Wanted, units: list[str]) -> None:
    views = hands.store.compare_views
    assert names(views.by_position(run, wanted, after=-1, limit=100)) == units
    assert views.count(run, wanted) == len(units)
    seen: list[str] = []
    after = -1
    while page := views.by_position(run, wanted, after=after, limit=3):
        seen += names(page)
        after = page[-1].position
    assert seen == units


def test_the_largest_deltas_come_first_page_by_page(hands: Hands, run: int) -> None:
    views = hands.store.compare_views
    expected = ["100%/pl", "Zeta/pl", "acme/pl", "Österreich/pl"]
    assert names(views.by_delta(run, EVERY_UNIT, after=None, limit=100)) == expected
    seen: list[str] = []
    after: tuple[float, int] | None = None
    while page := views.by_delta(run, EVERY_UNIT, after=after, limit=1):
        seen += names(page)
        assert page[-1].largest is not None
        after = (page[-1].largest, page[-1].position)
    assert seen == expected
    assert names(views.by_delta(run, Wanted(HARMFUL, tenant="acme"), after=None, limit=9)) == ["acme/pl"]


def test_neighbours_of_a_unit(hands: Hands, run: int) -> None:
    views = hands.store.compare_views
    at = {unit: position for position, unit in enumerate(UNITS)}
    assert views.beside(run, at["Zeta/tax"], HARMFUL) == ("Zeta/pl", "100%/pl")
    assert views.beside(run, at["acme/pl"], HARMFUL) == (None, "Zeta/pl")
    assert views.beside(run, at["alone"], HARMFUL) == ("aXb/pl", None)


def test_slower_in_sql_is_slower_in_words(hands: Hands) -> None:
    seconds = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0, 1.5, 2.0]
    both = {f"u{a}/u{b}": (a, b) for a in seconds for b in seconds}
    run = hands.submit(legs=(BASELINE,))
    for claim in (hands.take("w0"), hands.take("w1")):
        hands.prepared(claim, list(both), batches=1)
    for claim in (hands.take("w0"), hands.take("w1")):
        side = 0 if claim.task.leg == "baseline" else 1
        results = [
            UnitResult(unit, UnitState.DONE, Output("x", "1" * 64, 1), "", took[side]) for unit, took in both.items()
        ]
        failed = UnitResult("u0.1/u2.0", UnitState.FAILED, None, "timeout", 2.0)
        hands.store.ledger.mark(
            claim.task.id, claim.task.attempt, [failed if one.unit == failed.unit else one for one in results], None
        )
    timed = {unit: took for unit, took in both.items() if unit != "u0.1/u2.0"}  # what failed is no measure
    for ratio, floor in ((1.5, 0.1), (1.0, 0.0), (3.0, 0.2)):
        found = hands.store.latency.of(run, ratio=ratio, floor=floor, limit=1_000)
        slow = {unit for unit, (a, b) in timed.items() if is_slower(a, b, ratio=ratio, floor=floor)}
        assert ({one.unit for one in found.slower}, found.count, found.units) == (slow, len(slow), len(timed))
        assert found.baseline == pytest.approx(sum(a for a, _ in timed.values()))
    assert {one.unit for one in hands.store.latency.some(run, len(timed))} == set(timed)
    assert len(hands.store.latency.some(run, 15_000)) < len(timed)


def test_a_side_that_is_not_listed_is_no_pair(hands: Hands) -> None:
    run = hands.submit(legs=(BASELINE,))
    lists = {"baseline": ["a", "gone"], "candidate": ["a", "new"]}
    for claim in (hands.take("w0"), hands.take("w1")):
        hands.prepared(claim, lists[claim.task.leg], batches=1)
    todo = Side(UnitState.TODO)
    assert hands.store.compare.ready(run, 9) == [Pair("new", 1, None, todo), Pair("gone", 3, todo, None)]
