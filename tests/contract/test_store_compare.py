"""Compare runs in the store: which pairs are ready, what is recorded, and how a run ends by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hands import SPEC, Hands
from sqlalchemy import insert, update

from jobs.adapters.sql_schema import legs, runs, tasks, units
from jobs.adapters.sql_tasks import Claim
from jobs.causes import Cause, Share
from jobs.comparing import Compared, Pair, UnitClass, classify
from jobs.new_run import NewLeg
from jobs.overview import EVERY_UNIT
from jobs.run import Run, RunState, TaskState, Verdict
from runner.errors import BaseReplaced, Conflict, OutputsGone
from runner.model import Output, Prepared, Reason, TaskKind, Template, UnitResult, UnitState
from web.legwords import reused

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")
BROKEN = Reason("step_failed", "The step setup ended with exit code 1.")


class Comparing:
    """A compare run by hand: its legs' claims by name."""

    def __init__(self, hands: Hands, *, of: NewLeg = BASELINE, **more: object) -> None:
        self.hands, self.compare = hands, hands.store.compare
        self.run = hands.submit(legs=(of,), **more)
        self.claims = self.take(2)

    def take(self, count: int = 1) -> dict[str, Claim]:
        found = [self.hands.take(f"w{number}") for number in range(count)]
        return {claim.task.leg: claim for claim in found}

    def prepared(self, baseline: Sequence[str], candidate: Sequence[str] | None = None, *, batches: int = 1) -> None:
        """Prepare both legs, and claim the first batch of each."""
        self.hands.prepared(self.claims["baseline"], baseline, batches=batches)
        self.hands.prepared(self.claims["candidate"], baseline if candidate is None else candidate, batches=batches)
        self.claims = self.take(2)

    def mark(self, leg: str, outputs: Mapping[str, str | None]) -> None:
        """Finish units with an output of that content, or failed where it is None."""
        self.hands.mark_outputs(self.claims[leg], outputs)

    def end(self, leg: str) -> TaskState:
        return self.hands.end(self.claims[leg])

    def ready(self) -> list[Pair]:
        return self.compare.ready(self.run, 100)

    def judge(self, pairs: Sequence[Pair] | None = None, *, fail_fast: int | None = None) -> bool:
        """Do what the comparer does, to which other bytes are different."""
        wanted = self.ready() if pairs is None else pairs
        found = [(one, Compared(one.unit, one.position, classify(one) or UnitClass.DIFFERENT)) for one in wanted]
        return self.compare.record(self.run, found, fail_fast=fail_fast)

    def listed(self) -> list[Compared]:
        return self.hands.store.compare_views.by_position(self.run, EVERY_UNIT, after=-1, limit=1_000)

    def classes(self) -> dict[str, str]:
        return {one.unit: one.kind.value for one in self.listed()}

    @property
    def now(self) -> Run:
        return self.hands.run(self.run)


def test_a_pair_is_ready_when_both_sides_have_ended(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b", "c"])
    assert one.ready() == []
    one.mark("baseline", {"a": "1", "b": "1"})
    assert one.ready() == []
    one.mark("candidate", {"b": "2", "c": "2"})
    assert [pair.unit for pair in one.ready()] == ["b"]
    assert one.judge()
    assert one.ready() == []
    assert (one.classes(), one.now.units_different) == ({"b": "different"}, 1)
    assert not one.compare.close(one.run)
    assert one.compare.open_runs() == [one.run]


def test_the_run_ends_when_all_is_compared(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    for leg in ("baseline", "candidate"):
        one.mark(leg, {"a": "1", "b": "1"})
        assert one.end(leg) is TaskState.DONE
    assert one.now.state is RunState.RUNNING
    assert not one.compare.close(one.run), "its units are not compared"
    one.judge()
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.verdict, one.now.reason) == (RunState.DONE, Verdict.PASSED, None)
    assert one.compare.open_runs() == []
    assert one.hands.store.compare_views.counts(one.run) == ({UnitClass.SAME: 2}, 0)


def test_each_class_that_needs_no_file(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["same", "gone", "bad-b", "bad-c", "bad"], ["bad", "new", "same", "bad-b", "bad-c"])
    one.mark("baseline", {"same": "1", "gone": "1", "bad-b": None, "bad-c": "1", "bad": None})
    one.mark("candidate", {"same": "1", "new": "1", "bad-b": "1", "bad-c": None, "bad": None})
    assert {one.end("baseline"), one.end("candidate")} == {TaskState.FAILED}
    one.judge()
    assert one.compare.close(one.run)
    assert one.classes() == {
        "bad": "both_failed",
        "new": "new",
        "same": "same",
        "bad-b": "baseline_failed",
        "bad-c": "candidate_failed",
        "gone": "missing",
    }
    assert (one.now.state, one.now.verdict, one.now.units_different) == (RunState.DONE, Verdict.DIFFERENT, 4)
    positions = [found.position for found in one.listed()]
    assert positions == [0, 1, 2, 3, 4, 6], "the candidate's places, then those of the baseline"


def test_a_lone_unit_waits_for_both_lists(hands: Hands) -> None:
    one = Comparing(hands)
    hands.prepared(one.claims["candidate"], ["a", "new"], batches=1)
    assert one.ready() == []
    hands.prepared(one.claims["baseline"], ["a"], batches=1)
    assert [(pair.unit, pair.baseline) for pair in one.ready()] == [("new", None)]


def test_a_unit_that_is_done_again_is_compared_again(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    one.mark("baseline", {"a": "1"})
    one.mark("candidate", {"a": "2"})
    one.judge()
    claim = one.claims["candidate"]
    hands.store.ledger.void(claim.task.id, claim.task.attempt, "a", "its output changed")
    assert (one.classes(), one.now.units_different, one.ready()) == ({}, 0, [])
    one.mark("candidate", {"a": "1"})
    one.judge()
    assert (one.classes(), one.now.units_different) == ({"a": "same"}, 0)


def test_what_was_read_before_a_unit_was_voided_is_not_recorded(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    one.mark("baseline", {"a": "1"})
    one.mark("candidate", {"a": "2"})
    read = one.ready()
    claim = one.claims["candidate"]
    hands.store.ledger.void(claim.task.id, claim.task.attempt, "a", "its output changed")
    one.judge(read)
    assert one.classes() == {}, "it is to be done again"
    one.mark("candidate", {"a": "1"})
    one.judge(read)
    assert one.classes() == {}, "it has another output now"
    one.judge()
    assert one.classes() == {"a": "same"}


def test_two_comparers_at_once_change_nothing(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    one.mark("baseline", {"a": "1", "b": "1"})
    one.mark("candidate", {"a": "2", "b": "1"})
    read = one.ready()
    one.judge(read)
    one.judge(read)
    assert (one.classes(), one.now.units_different) == ({"a": "different", "b": "same"}, 1)
    for leg in ("baseline", "candidate"):
        one.end(leg)
    assert one.compare.close(one.run)
    ends = len(hands.events(one.run, "run"))
    assert one.compare.close(one.run)
    assert len(hands.events(one.run, "run")) == ends
    assert one.now.verdict is Verdict.DIFFERENT


def test_a_preparation_that_fails_ends_the_run_and_the_other_leg(hands: Hands) -> None:
    one = Comparing(hands)
    hands.prepared(one.claims["baseline"], ["a", "b", "c"], batches=3)
    running = hands.take("w3")
    assert hands.end(one.claims["candidate"], TaskState.FAILED, BROKEN) is TaskState.FAILED
    assert hands.store.tasks.renew(running.task.id, running.task.attempt, 60.0), "it is told to end"
    hands.end(running, TaskState.CANCELLED, Reason("cancelled", "The run was cancelled."))
    assert (one.now.state, one.now.verdict, one.now.reason) == (RunState.FAILED, None, BROKEN)
    assert hands.claim() is None
    reasons = {task.reason.code for task in hands.tasks(one.run) if task.state is TaskState.CANCELLED and task.reason}
    assert reasons == {"leg_failed"}
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.reason) == (RunState.FAILED, BROKEN)


def test_a_failed_leg_is_resumed(hands: Hands) -> None:
    one = Comparing(hands)
    hands.prepared(one.claims["baseline"], ["a", "b"], batches=1)
    hands.end(one.claims["candidate"], TaskState.FAILED, BROKEN)
    one.compare.close(one.run)
    hands.store.runs.resume(one.run, "mio")
    claims = one.take(2)
    assert {claim.task.kind for claim in claims.values()} == {TaskKind.PREPARE, TaskKind.VERIFY}
    hands.prepared(claims["candidate"], ["a", "b"], batches=1)
    one.claims = claims | one.take()
    for leg in ("baseline", "candidate"):
        one.mark(leg, {"a": "1", "b": "1"})
        one.end(leg)
    assert one.now.state is RunState.RUNNING
    one.judge()
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.verdict) == (RunState.DONE, Verdict.PASSED)


def test_a_run_that_is_cancelled_while_it_is_compared_has_no_verdict(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    for leg in ("baseline", "candidate"):
        one.mark(leg, {"a": "1", "b": "1"})
        one.end(leg)
    read = one.ready()
    hands.store.runs.cancel(one.run, "mio")
    assert one.now.state is RunState.CANCELLED
    assert not one.judge(read)
    assert (one.ready(), one.classes()) == ([], {})
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.verdict) == (RunState.CANCELLED, None)
    hands.store.runs.resume(one.run, "mio")
    assert one.now.state is RunState.RUNNING
    one.judge()
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.verdict) == (RunState.DONE, Verdict.PASSED)


def test_fail_fast_stops_after_so_many_differing_units(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared([f"u{number}" for number in range(6)], batches=2)
    for leg, content in (("baseline", "1"), ("candidate", "2")):
        one.mark(leg, {"u0": content, "u1": content})
    assert not one.judge(fail_fast=2)
    assert one.ready() == []
    for leg, claim in one.claims.items():
        assert hands.store.tasks.renew(claim.task.id, claim.task.attempt, 60.0), f"{leg} is told to end"
        hands.end(claim, TaskState.CANCELLED, Reason("cancelled", "The run was cancelled."))
    assert hands.claim() is None
    assert one.now.state is RunState.RUNNING
    assert one.compare.close(one.run)
    assert (one.now.state, one.now.verdict) == (RunState.DONE, Verdict.DIFFERENT)
    text = "Stopped after 2 differing units (fail_fast); 4 units were not compared."
    assert one.now.reason == Reason("fail_fast", text)
    [event] = hands.events(one.run, "stop")
    assert event.data["code"] == "fail_fast"
    with pytest.raises(Conflict):
        hands.store.runs.resume(one.run, "mio")


def test_a_cancelled_run_stays_so_though_it_was_stopped(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b"])
    one.mark("baseline", {"a": "1"})
    one.mark("candidate", {"a": "2"})
    one.judge(fail_fast=1)
    hands.store.runs.cancel(one.run, "mio")
    for claim in one.claims.values():
        hands.end(claim, TaskState.CANCELLED)
    one.compare.close(one.run)
    assert (one.now.state, one.now.verdict) == (RunState.CANCELLED, None)


def test_what_differed_last_time_is_known(hands: Hands) -> None:
    one = Comparing(hands)
    one.prepared(["a", "b", "c"])
    one.mark("baseline", {"a": "1", "b": "1", "c": None})
    one.mark("candidate", {"a": "1", "b": "2", "c": "1"})
    for leg in ("baseline", "candidate"):
        one.end(leg)
    one.judge()
    assert one.compare.differed("accounts", before=one.run + 1) == frozenset(), "it has not ended"
    one.compare.close(one.run)
    assert one.compare.differed("accounts", before=one.run + 1) == {"b", "c"}
    assert one.compare.differed("accounts", before=one.run) == frozenset()
    assert one.compare.differed("other", before=one.run + 1) == frozenset()
    plain = hands.submit()
    assert one.compare.differed("accounts", before=plain + 1) == {"b", "c"}, "a run of one branch tells nothing"


# ---- the same data ----


def test_the_second_leg_starts_from_the_first_ones_base(hands: Hands) -> None:
    run = hands.submit(legs=(BASELINE,))
    first = hands.take()
    assert first.data_id is None
    hands.prepared(first, ["a"], data="d1")
    second = hands.take()
    while second.task.kind is not TaskKind.PREPARE:
        second = hands.take()
    assert second.data_id == "d1"
    hands.prepared(second, ["a"], data="d1")
    assert {leg.data_id for leg in hands.run(run).legs} == {"d1"}


def test_a_leg_that_was_prepared_from_another_base_is_prepared_again(hands: Hands) -> None:
    one = Comparing(hands)
    hands.prepared(one.claims["baseline"], ["a"], data="d1")
    claim = one.claims["candidate"]
    assert claim.data_id is None, "both began at once"
    with pytest.raises(BaseReplaced, match="other one has the data d1, this one has d2"):
        hands.prepared(claim, ["a"], data="d2")
    assert [leg.data_id for leg in one.now.legs] == ["d1", None]
    hands.interrupt(claim, Reason("base_replaced", "…"))
    hands.make_due()
    again = [hands.take(), hands.take()]
    [claim] = [claim for claim in again if claim.task.kind is TaskKind.PREPARE]
    assert claim.data_id == "d1"
    hands.prepared(claim, ["a"], data="d1")
    assert [leg.data_id for leg in one.now.legs] == ["d1", "d1"]


def test_a_resumed_leg_stays_on_the_data_of_the_one_that_is_done(hands: Hands) -> None:
    one = Comparing(hands)
    for leg in ("baseline", "candidate"):
        hands.prepared(one.claims[leg], ["a", "b"], batches=1, data="d1")
    one.claims = one.take(2)
    one.mark("baseline", {"a": "1", "b": "1"})
    one.end("baseline")
    hands.end(one.claims["candidate"], TaskState.ERRORED, Reason("needs_attention", "…"))
    assert one.now.state is RunState.ERRORED
    one.compare.close(one.run)
    hands.clean(one.run)
    hands.store.runs.resume(one.run, "mio")
    claim = hands.take()
    assert (claim.task.kind, claim.task.leg, claim.data_id) == (TaskKind.PREPARE, "candidate", "d1")


def test_legs_with_sources_of_their_own_need_not_stand_on_the_same_data(hands: Hands) -> None:
    one = Comparing(hands, source="new", of=replace(BASELINE, database="old"))
    assert {name: claim.database for name, claim in one.claims.items()} == {"baseline": "old", "candidate": "new"}
    hands.prepared(one.claims["baseline"], ["a"], data="d1")
    hands.prepared(one.claims["candidate"], ["a"], data="d2")
    assert {leg.name: (leg.database, leg.data_id) for leg in one.now.legs} == {
        "baseline": ("old", "d1"),
        "candidate": ("new", "d2"),
    }
    assert one.now.two_databases
    assert {chosen for _, _, chosen in hands.store.inside.specs(one.run)} == {"old", "new"}


def test_two_legs_that_are_both_prepared_again_may_take_newer_data(hands: Hands) -> None:
    one = Comparing(hands)
    for leg in ("baseline", "candidate"):
        hands.prepared(one.claims[leg], ["a", "b"], batches=1, data="d1")
    hands.store.runs.cancel(one.run, "mio")
    one.compare.close(one.run)
    hands.clean(one.run)
    hands.store.runs.resume(one.run, "mio")
    one.claims = one.take(2)
    assert {claim.data_id for claim in one.claims.values()} == {None}
    hands.prepared(one.claims["baseline"], ["a", "b"], batches=1, data="d2")
    with pytest.raises(BaseReplaced):
        hands.prepared(one.claims["candidate"], ["a", "b"], batches=1, data="d1")
    hands.prepared(one.claims["candidate"], ["a", "b"], batches=1, data="d2")


# ---- what an earlier run has finished ----


def baseline_of(hands: Hands, **more: Any) -> tuple[int, Claim, Prepared]:
    """Submit a compare run and claim its baseline's preparation; gives what it will have found."""
    run = hands.submit(legs=(BASELINE,))
    claim = next(claim for claim in (hands.take(), hands.take()) if claim.task.leg == "baseline")
    template = Template("verification", "leg", "app", more.get("data", "d1"))
    return run, claim, Prepared("image", more.get("image", "sha256:1"), tuple(more.get("units", "ab")), template)


def finished(hands: Hands) -> Comparing:
    """A run of which the baseline finished a and failed at b."""
    one = Comparing(hands)
    for leg in ("baseline", "candidate"):
        hands.prepared(one.claims[leg], ["a", "b"], batches=1, data="d1")
    one.claims = one.take(2)
    one.mark("baseline", {"a": "1", "b": None})
    one.mark("candidate", {"a": "1", "b": "1"})
    one.end("baseline")
    one.end("candidate")
    one.judge()
    assert one.compare.close(one.run)
    return one


def test_finished_units_are_taken_over_with_their_proof(hands: Hands) -> None:
    old = finished(hands)
    run, claim, result = baseline_of(hands)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=True)
    assert reuse is not None
    assert (reuse.run, reuse.leg, reuse.differs, set(reuse.units)) == (old.run, "baseline", (), {"a"})
    divided: list[str] = []

    def divide(names: Sequence[str]) -> list[tuple[str, ...]]:
        divided.extend(names)
        return [tuple(names)]

    hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, divide, reuse=reuse)
    assert divided == ["b"], "what failed is done again"
    mine = {unit.unit: unit for unit in hands.units(run, leg="baseline")}
    theirs = {unit.unit: unit for unit in hands.units(old.run, leg="baseline")}
    assert (mine["a"].state, mine["a"].output, mine["a"].seconds) == (UnitState.DONE, theirs["a"].output, 1.0)
    assert mine["b"].state is UnitState.TODO
    leg = hands.run(run).baseline
    assert leg is not None
    assert leg.reused == {
        "run": old.run,
        "leg": "baseline",
        "units": 1,
        "seconds_saved": 1.0,
        "differs": [],
        "proof": {"spec": "d", "image": "sha256:1", "data": "d1"},
    }
    [event] = hands.events(run, "reuse")
    assert (event.data["run"], event.data["units"]) == (old.run, 1)
    assert hands.run(run).units.done == 1


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        ({"image": "sha256:2"}, ("image",)),
        ({"data": "d2"}, ("data",)),
        ({"image": "sha256:2", "data": "d2"}, ("image", "data")),
        ({"units": "abc"}, ("units",)),
    ],
)
def test_what_differs_is_named_and_nothing_is_taken(
    hands: Hands, more: dict[str, str], differs: tuple[str, ...]
) -> None:
    old = finished(hands)
    run, claim, result = baseline_of(hands, **more)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.run, reuse.differs, reuse.units) == (old.run, differs, {})
    hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [tuple(names)], reuse=reuse)
    leg = hands.run(run).baseline
    assert leg is not None
    assert leg.reused is not None
    assert (leg.reused["units"], leg.reused["differs"], leg.reused["proof"]) == (0, list(differs), None)


def test_an_earlier_leg_on_another_database_is_told_of(hands: Hands) -> None:
    old = finished(hands)
    run, claim, result = baseline_of(hands)
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run == old.run).values(database="old_server"))
        connection.execute(update(legs).where(legs.c.run == run).values(database="new_server"))
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.run, reuse.differs, reuse.units) == (old.run, ("database",), {})
    hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [tuple(names)], reuse=reuse)
    leg = hands.run(run).baseline
    assert leg is not None
    assert reused(leg) == f"nothing taken over from run #{old.run}: its data is of another database"
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run == old.run).values(database=None))
    assert hands.store.reuse.find(run, "baseline", result, migrations=False) is None, "nobody knows on which it was"


def test_one_on_the_same_database_is_looked_at_first(hands: Hands) -> None:
    old = finished(hands)
    newer = finished(hands)
    run, _, result = baseline_of(hands)
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run != newer.run).values(database="new_server"))
        connection.execute(update(legs).where(legs.c.run == newer.run).values(database="old_server"))
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.run, reuse.differs, set(reuse.units)) == (old.run, (), {"a"})


def test_a_candidate_that_was_migrated_is_no_baseline(hands: Hands) -> None:
    one = hands.submit(legs=(), name="candidate")
    claim = hands.take()
    hands.prepared(claim, ["a"], data="d1")
    verify = hands.take()
    hands.mark(verify, "a")
    hands.end(verify)
    run = hands.submit(legs=(replace(BASELINE, commit="c" * 40),))
    result = Prepared("image", "sha256:1", ("a",), Template("verification", "leg", "app", "d1"))
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=True)
    assert reuse is not None
    assert reuse.differs == ("migrations",)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.run, set(reuse.units)) == (one, {"a"})


def test_nothing_is_taken_over_when_the_outputs_are_gone(hands: Hands) -> None:
    old = finished(hands)
    run, claim, result = baseline_of(hands)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    with hands.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == old.run).values(outputs_removed_at=1.0))
    with pytest.raises(OutputsGone):
        hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [], reuse=reuse)
    assert hands.store.reuse.find(run, "baseline", result, migrations=False) is None


def test_what_an_interrupted_preparation_wrote_is_taken_over_too(hands: Hands) -> None:
    finished(hands)
    run, claim, result = baseline_of(hands)
    with hands.store.database.write() as connection:  # as a preparation without `reuse` begins
        row = {"run": run, "leg": "baseline", "unit": "a", "position": 0, "state": "todo", "text": ""}
        connection.execute(insert(units), row)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [tuple(names)], reuse=reuse)
    assert {unit.unit: unit.state.value for unit in hands.units(run, leg="baseline")} == {"a": "done", "b": "todo"}


# ---- durations ----


def timed(hands: Hands, seconds: Mapping[str, tuple[float | None, float | None]]) -> int:
    """Do a compare run whose units take so long on the baseline and on the candidate; None: nobody knows."""
    one = Comparing(hands)
    one.prepared(list(seconds))
    for number, leg in enumerate(("baseline", "candidate")):
        claim = one.claims[leg]
        results = [
            UnitResult(unit, UnitState.DONE, Output("x", "1" * 64, 1), "", both[number])
            for unit, both in seconds.items()
        ]
        hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
        one.end(leg)
    one.judge()
    assert one.compare.close(one.run)
    return one.run


def test_what_became_slower_is_listed_with_its_noise(hands: Hands) -> None:
    timed(hands, {"noisy": (1.0, 9.0), "slow": (1.0, 1.0)})
    run = timed(
        hands, {"noisy": (1.0, 5.0), "slow": (2.0, 8.0), "same": (3.0, 3.1), "tiny": (0.01, 0.09), "none": (0, 1)}
    )
    found = hands.store.latency.of(run, ratio=1.5, floor=0.1, limit=10)
    assert (found.units, found.count) == (5, 3)
    assert [(one.unit, one.ratio, one.within_noise) for one in found.slower] == [
        ("slow", 4.0, False),
        ("noisy", 5.0, True),
        ("none", None, False),
    ]
    assert found.slower[1].history == (1.0, 9.0)
    assert [(leg.name, leg.hosts, leg.seconds) for leg in found.legs] == [
        ("baseline", ("h1",), 6.01),
        ("candidate", ("h1",), pytest.approx(17.19)),
    ]
    assert found.cautions == ()
    assert len(hands.store.latency.of(run, ratio=1.5, floor=0.1, limit=1).slower) == 1
    assert hands.store.latency.of(run, ratio=1.5, floor=5.5, limit=10).count == 1


def test_unlike_machines_are_said(hands: Hands) -> None:
    run = timed(hands, {"a": (1.0, 5.0)})
    with hands.store.database.write() as connection:
        connection.execute(update(tasks).where(tasks.c.run == run, tasks.c.leg == "candidate").values(host="h2"))
    [caution] = hands.store.latency.of(run, ratio=1.5, floor=0.1, limit=10).cautions
    assert caution == "The legs ran on different machines: the baseline on h1, the candidate on h2."


def test_units_whose_times_are_not_known_are_left_out_and_that_is_said(hands: Hands) -> None:
    run = timed(hands, {"a": (1.0, 5.0), "b": (None, 9.0), "c": (2.0, None), "d": (1.0, 1.0)})
    found = hands.store.latency.of(run, ratio=1.5, floor=0.1, limit=10)
    assert (found.units, found.baseline, found.candidate, found.count) == (2, 2.0, 6.0, 1)
    assert [one.unit for one in hands.store.latency.some(run, 4)] == ["a", "d"]
    [caution] = found.cautions
    assert caution.startswith("2 units are left out: nobody watched")
    project = hands.store.runs.get(run).project
    assert hands.store.ledger.durations(project, "baseline", before=run + 1) == {"a": 1.0, "c": 2.0, "d": 1.0}
    assert hands.store.ledger.last_pace(project, before=run + 1) == (run, pytest.approx(19 / 6))
    assert hands.store.inside.unit_seconds(run) == (6, 19.0)


# ---- causes ----


def share(what: str, *, column: str | None = None, ratio: tuple[float, float] | None = None) -> Share:
    return Share(Cause("*/pl", what, column, "up" if ratio else None), 3, ratio, (1.0, 9.0) if ratio else None)


def test_many_units_are_few_causes(hands: Hands) -> None:
    one = Comparing(hands)
    names = [f"t{number}/pl" for number in range(8)]
    one.prepared(names)
    one.mark("baseline", dict.fromkeys(names, "1"))
    one.mark("candidate", dict.fromkeys(names, "2"))
    found = []
    for number, pair in enumerate(one.ready()):
        shares = [share("value", column="amount", ratio=(1.0999, 1.1))]
        shares += [share("added_column", column="rate")] if number < 3 else []
        found.append((pair, Compared(pair.unit, pair.position, UnitClass.DIFFERENT, causes=tuple(shares))))
    one.compare.record(one.run, found)
    one.compare.record(one.run, found)
    amount, rate = hands.store.groups.list(one.run)
    assert (amount.cause.title, amount.units, amount.count) == ("*/pl: amount: values went up", 8, 24)
    assert (amount.ratio, amount.offset) == (pytest.approx(1.1, abs=1e-4), None)
    assert amount.first == tuple(names[:5])
    assert (rate.cause.title, rate.units, rate.ratio) == ("*/pl: rate: the column was added", 3, None)
    claim = one.claims["candidate"]
    hands.store.ledger.void(claim.task.id, claim.task.attempt, names[0], "…")
    assert [group.units for group in hands.store.groups.list(one.run)] == [7, 2]
    assert hands.store.groups.list(one.run + 1) == []
