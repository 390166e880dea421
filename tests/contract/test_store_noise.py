"""Compare runs whose baseline runs twice, in the store: when a unit is ready, what is learnt, and what counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fixtures_store import older_store
from hands import SPEC, Hands
from sqlalchemy import text

from jobs.accepting import Asked
from jobs.adapters.sql_compare import forget
from jobs.adapters.sql_noise import NoiseTally
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.causes import Cause, Share
from jobs.comparing import Compared, Pair, UnitClass, classify, second_run
from jobs.new_run import NewLeg
from jobs.noise import Moves, Noise, judged
from jobs.overview import DIFFERING, Wanted
from jobs.run import RunState, TaskState, Verdict
from runner.errors import BaseReplaced
from runner.model import BASELINE_AGAIN, UnitState

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")
AGAIN = replace(BASELINE, name=BASELINE_AGAIN)
LEGS = ("baseline", "candidate", BASELINE_AGAIN)
COLUMN: dict[str, Any] = {
    "class": "different",
    "format": "csv",
    "changes": [{"column": "at", "changed": 1, "delta": None, "kinds": {}}],
}


AT, TAX = Cause("*/pl", "value", "at"), Cause("*/pl", "value", "tax", "up")
ASKED = Asked("New tax rate", "The law changed on 1 October.")


class Twice:
    """A compare run by hand of which the baseline runs twice."""

    def __init__(self, hands: Hands) -> None:
        self.hands, self.compare = hands, hands.store.compare
        self.run = hands.submit(legs=(BASELINE, AGAIN))
        self.claims = self.take()

    def take(self) -> dict[str, Claim]:
        return {claim.task.leg: claim for claim in (self.hands.take(f"w{number}") for number in range(3))}

    def prepared(self, units: Sequence[str], *, again: Sequence[str] | None = None) -> None:
        for leg in LEGS:
            listed = again if again is not None and leg == BASELINE_AGAIN else units
            self.hands.prepared(self.claims[leg], listed, batches=1)
        self.claims = self.take()

    def mark(self, leg: str, outputs: Mapping[str, str | None]) -> None:
        self.hands.mark_outputs(self.claims[leg], outputs)

    def ready(self) -> list[str]:
        return [pair.unit for pair in self.compare.ready(self.run, 100)]

    def judge(
        self,
        pairs: list[Pair] | None = None,
        *,
        real: Sequence[str] = (),
        taxed: Sequence[str] = (),
        fail_fast: int | None = None,
    ) -> None:
        """Do what the comparer does when all that is unlike is the column `at`; in `real` it is something else.

        In `taxed` units it is the column `tax` too.
        """
        found = []
        for pair in self.compare.ready(self.run, 100) if pairs is None else pairs:
            kind = classify(pair)
            summary: dict[str, Any] = {} if kind is not None else COLUMN
            if pair.unit in real:
                summary = {"class": "different", "format": "bytes"}
            shares: tuple[Share, ...] = ()
            if summary is COLUMN and pair.unit in taxed:
                summary = COLUMN | {"changes": [*COLUMN["changes"], COLUMN["changes"][0] | {"column": "tax"}]}
                shares = (Share(TAX, 1, (1.1, 1.1)),)
            shares += (Share(AT, 1),) if kind is None and pair.unit not in real else ()
            one = Compared(pair.unit, pair.position, kind or UnitClass.DIFFERENT, summary=summary, causes=shares)
            noise = None if second_run(pair) is None else Noise({"": Moves(columns=("at",))}, changed=1)
            found.append((pair, judged(one, noise)))
        self.compare.record(self.run, found, fail_fast=fail_fast)

    def end(self) -> None:
        for leg in LEGS:
            self.hands.end(self.claims[leg])
        self.judge()
        assert self.compare.close(self.run)

    def done(self, baseline: str, again: str, candidate: str, unit: str = "a") -> None:
        for leg, content in zip(("baseline", BASELINE_AGAIN, "candidate"), (baseline, again, candidate), strict=True):
            self.mark(leg, {unit: content})


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 20, 21, 22])
@pytest.mark.parametrize("state", [None, UnitState.DONE])
def test_pages_of_units_hold_each_legs_unit_once(hands: Hands, limit: int, state: UnitState | None) -> None:
    one = Twice(hands)
    names = list("abcdefg")
    one.prepared(names)
    one.mark("candidate", dict.fromkeys(names, "1"))
    one.mark("baseline", dict.fromkeys("bdef", "1"))
    one.mark(BASELINE_AGAIN, dict.fromkeys("abfg", "1"))
    wanted = [(unit.leg, unit.unit) for unit in hands.units(one.run, state=state, limit=100)]
    assert len(wanted) == (21 if state is None else 15)
    seen: list[tuple[str, str]] = []
    after: int | None = None
    while found := hands.units(one.run, state=state, after=after, limit=limit):
        seen += [(unit.leg, unit.unit) for unit in found]
        after = found[-1].position
    assert seen == wanted


def test_a_unit_is_ready_when_all_three_have_ended(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["a", "b"])
    one.mark("baseline", {"a": "1", "b": "1"})
    one.mark("candidate", {"a": "2", "b": "1"})
    assert one.ready() == []
    one.mark(BASELINE_AGAIN, {"a": "1"})
    assert one.ready() == ["a"]
    one.mark(BASELINE_AGAIN, {"b": None})
    assert one.ready() == ["a", "b"], "that it failed the second time teaches nothing"


def test_what_moves_by_itself_is_left_out_of_the_verdict(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["a", "b"])
    one.done("1", "2", "3", "a")
    one.done("4", "4", "4", "b")
    one.end()
    now = hands.run(one.run)
    assert (now.state, now.verdict, now.units_different) == (RunState.DONE, Verdict.PASSED, 0)
    [a, b] = hands.compared(one.run)
    assert (a.kind, a.noisy, b.kind, b.noisy) == (UnitClass.DIFFERENT, True, UnitClass.SAME, False)
    store = hands.store
    assert store.noise.tally(one.run) == NoiseTally(checked=2, unstable=1, noisy=1)
    [found] = store.noise.list(one.run)
    assert (found.unit, found.kind, found.noisy, found.noise.columns) == ("a", UnitClass.DIFFERENT, True, ("at",))
    assert store.noise.list(one.run, after=found.position) == []
    assert store.noise.one(one.run, "a") == found.noise
    assert store.noise.one(one.run, "b") is None
    assert one.compare.harmed(one.run) == frozenset()
    views = store.compare_views
    overview = views.overview(one.run)
    assert (overview.harmful, overview.noisy, overview.counts[UnitClass.DIFFERENT]) == (0, 1, 1)
    assert (overview.reports, overview.columns, overview.left) == ((), (), 0)
    assert views.heat_map(one.run, first=0, limit=5).differing == 0
    assert views.count(one.run, DIFFERING) == 0
    assert [found.unit for found in views.by_position(one.run, Wanted(noisy=True), after=-1, limit=9)] == ["a"]
    assert views.beside(one.run, 9, [UnitClass.DIFFERENT], noisy=False) == (None, None)
    assert views.beside(one.run, 9, [UnitClass.DIFFERENT], noisy=True) == ("a", None)


def test_a_real_difference_counts_though_others_are_noise(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["t/a", "t/b", "t/c"])
    one.done("1", "2", "3", "t/a")
    one.done("1", "1", "3", "t/b")
    one.done("1", "2", "3", "t/c")
    one.judge(real=["t/c"])
    one.end()
    now = hands.run(one.run)
    assert (now.verdict, now.units_different) == (Verdict.DIFFERENT, 2)
    assert one.compare.harmed(one.run) == {"t/b", "t/c"}
    assert hands.store.noise.tally(one.run) == NoiseTally(3, 2, 1)
    [part] = hands.store.compare_views.overview(one.run).tenants
    assert (part.name, part.harmful, part.noisy, part.total) == ("t", 2, 1, 3)
    [part] = hands.store.compare_views.heat_map(one.run, first=0, limit=5).tenants
    assert (part.harmful, part.noisy) == (2, 1)
    assert one.compare.differed("accounts", before=one.run + 1) == {"t/b", "t/c"}


def stands(hands: Hands, run: int) -> tuple[str | None, int, int, int]:
    now = hands.run(run)
    return now.verdict and now.verdict.value, now.units_different, now.units_accepted, now.groups_accepted


def moving(hands: Hands) -> Twice:
    """Give a run of which `n/pl` differs by noise alone, `m/pl` by tax too, and `s/pl` not at all."""
    one = Twice(hands)
    one.prepared(["m/pl", "n/pl", "s/pl"])
    one.done("1", "2", "3", "m/pl")
    one.done("1", "2", "3", "n/pl")
    one.done("4", "4", "4", "s/pl")
    return one


def test_what_is_not_noise_has_to_be_accepted_and_noise_never_is(hands: Hands) -> None:
    one = moving(hands)
    one.judge(taxed=["m/pl"])
    one.end()
    assert stands(hands, one.run) == ("different", 1, 0, 0)
    store = hands.store
    assert [group.cause for group in store.groups.list(one.run)] == [TAX], "noise is no group"
    store.acceptances.accept(one.run, TAX.key, ASKED, "rin")
    assert stands(hands, one.run) == ("passed", 1, 1, 1)
    marks = {found.unit: (found.noisy, found.accepted) for found in hands.compared(one.run)}
    assert marks == {"m/pl": (False, True), "n/pl": (True, False), "s/pl": (False, False)}
    assert store.compare_views.count(one.run, replace(DIFFERING, accepted=False)) == 0
    later = moving(hands)
    later.judge(taxed=["m/pl"], fail_fast=1)
    assert stands(hands, later.run) == (None, 1, 1, 1), "neither stops the run"
    later.end()
    assert stands(hands, later.run) == ("passed", 1, 1, 1)
    store.acceptances.withdraw(one.run, TAX.key, "mio")
    assert stands(hands, one.run) == ("different", 1, 0, 0)


def test_a_unit_that_is_noisy_and_accepted_leaves_the_verdict_once(hands: Hands) -> None:
    acceptances = hands.store.acceptances

    def run(*, noisy: bool = True) -> Twice:
        """Do what no comparer does: keep the causes of a unit that differs by noise alone."""
        one = moving(hands)
        found = []
        for pair in one.compare.ready(one.run, 100):
            is_noise = noisy and pair.unit == "n/pl"
            kind = classify(pair) or UnitClass.DIFFERENT
            shares = (Share(TAX, 1, (1.1, 1.1)),) if kind is UnitClass.DIFFERENT else ()
            noise = Noise({"": Moves(columns=("tax",))}) if is_noise else None
            found.append((pair, Compared(pair.unit, pair.position, kind, causes=shares, noise=noise, noisy=is_noise)))
        assert one.compare.record(one.run, found, fail_fast=3)
        return one

    first = run()
    first.end()
    assert stands(hands, first.run) == ("different", 1, 0, 0)
    acceptances.accept(first.run, TAX.key, ASKED, "rin")
    assert stands(hands, first.run) == ("passed", 1, 1, 1)
    assert acceptances.counts(first.run) == {TAX.key: 1}
    carried = run()
    assert stands(hands, carried.run) == (None, 1, 1, 1)
    with hands.store.database.write() as connection:
        forget(connection, carried.run, names=["s/pl"])
    assert stands(hands, carried.run) == (None, 1, 1, 1), "counted again, it is the same"
    carried.end()
    assert stands(hands, carried.run) == ("passed", 1, 1, 1)
    plain = run(noisy=False)
    plain.end()
    assert stands(hands, plain.run) == ("passed", 2, 2, 1)
    for one in (first, carried):
        assert {found.unit for found in hands.compared(one.run) if found.accepted} == {"m/pl"}
        assert one.compare.harmed(one.run) == {"m/pl"}
        acceptances.withdraw(one.run, TAX.key, "mio")
        assert stands(hands, one.run) == ("different", 1, 0, 0)


def test_noise_does_not_stop_a_run(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["a", "b"])
    one.done("1", "2", "3", "a")
    found = [
        (pair, judged(Compared("a", 0, UnitClass.DIFFERENT, summary=COLUMN), Noise({"": Moves(columns=("at",))})))
        for pair in one.compare.ready(one.run, 9)
    ]
    assert one.compare.record(one.run, found, fail_fast=1)
    assert hands.run(one.run).state is RunState.RUNNING


def test_a_unit_whose_second_run_is_done_again_is_judged_again(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["a", "b"])
    one.done("1", "2", "3")
    stale = one.compare.ready(one.run, 9)
    one.judge()
    claim = one.claims[BASELINE_AGAIN]
    hands.store.ledger.void(claim.task.id, claim.task.attempt, "a", "its output changed")
    assert (hands.compared(one.run), hands.store.noise.list(one.run), one.ready()) == ([], [], [])
    one.judge(stale)
    assert hands.compared(one.run) == [], "the second run is to be done again"
    one.mark(BASELINE_AGAIN, {"a": "1"})
    one.judge()
    assert hands.store.noise.list(one.run) == []
    assert hands.run(one.run).units_different == 1


def test_a_unit_that_the_second_run_does_not_list_waits_for_its_list(hands: Hands) -> None:
    one = Twice(hands)
    for leg in ("baseline", "candidate"):
        hands.prepared(one.claims[leg], ["a", "b"], batches=1)
    again, one.claims = (
        one.claims[BASELINE_AGAIN],
        {claim.task.leg: claim for claim in (hands.take("w0"), hands.take("w1"))},
    )
    one.mark("baseline", {"a": "1", "b": "1"})
    one.mark("candidate", {"a": "2", "b": "1"})
    assert one.ready() == []
    hands.prepared(again, ["a", "only"], batches=1)
    assert one.ready() == ["b"]
    one.claims[BASELINE_AGAIN] = hands.take("w2")
    one.mark(BASELINE_AGAIN, {"a": "1", "only": "1"})
    one.end()
    assert {found.unit for found in hands.compared(one.run)} == {"a", "b"}, "what it alone lists has no class"
    assert hands.run(one.run).verdict is Verdict.DIFFERENT


def test_a_unit_that_the_second_run_never_made_is_judged_without_it(hands: Hands) -> None:
    one = Twice(hands)
    one.prepared(["a"])
    one.mark("baseline", {"a": "1"})
    one.mark("candidate", {"a": "2"})
    one.hands.end(one.claims["baseline"])
    one.hands.end(one.claims["candidate"])
    assert one.ready() == []
    one.hands.end(one.claims[BASELINE_AGAIN], TaskState.FAILED)
    assert one.ready() == ["a"]
    one.judge()
    assert one.compare.close(one.run)
    assert (hands.run(one.run).verdict, hands.run(one.run).units_different) == (Verdict.DIFFERENT, 1)


def test_a_run_whose_baseline_runs_once_has_no_tally(hands: Hands) -> None:
    run = hands.submit(legs=(BASELINE,))
    assert hands.store.noise.tally(run) is None
    assert hands.store.noise.list(run) == []


def test_all_three_stand_on_the_same_data_and_are_run_again_together(hands: Hands) -> None:
    one = Twice(hands)
    assert [leg.name for leg in hands.run(one.run).legs] == ["baseline", BASELINE_AGAIN, "candidate"]
    hands.prepared(one.claims["baseline"], ["a"], data="d1")
    for leg in ("candidate", BASELINE_AGAIN):
        with pytest.raises(BaseReplaced):
            hands.prepared(one.claims[leg], ["a"], data="d2")
        hands.prepared(one.claims[leg], ["a"], data="d1")
    assert [leg.name for leg in hands.store.runs.new_legs(one.run)] == ["baseline", "candidate", BASELINE_AGAIN]


def test_what_was_compared_before_has_no_noise(empty_url: str) -> None:
    with older_store(empty_url, "0010") as connection:
        connection.execute(
            text(
                "INSERT INTO comparisons (run, unit, position, kind, changed, summary, seconds, at, tenant, report)"
                " VALUES (1, 'a/pl', 0, 'different', 1, '{}', 0, 1, 'a', 'pl')"
            )
        )
    store = Store.open(empty_url)
    found = store.compare.one(1, "a/pl")
    assert (found.kind, found.noisy, found.harmful) == (UnitClass.DIFFERENT, False, True)
    assert (store.noise.tally(1), store.noise.list(1), store.noise.one(1, "a/pl")) == (None, [], None)
    assert store.compare.harmed(1) == {"a/pl"}
    store.close()
