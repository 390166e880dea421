"""Which runs use which snapshot of a source, on both stores."""

from __future__ import annotations

from dataclasses import replace

from hands import SPEC, Hands

from jobs.new_run import NewLeg
from jobs.run import TaskState

OPTIONS = {"snapshot": "month-end"}


def submit(hands: Hands, source: str, options: dict[str, object] | None = None) -> int:
    new = hands.new(source=source)
    return hands.store.runs.add(replace(new, options=options or {}), key=None, body="")[0].id


def test_runs_are_told_by_the_data_of_their_legs(hands: Hands) -> None:
    ended = submit(hands, "books")
    hands.prepared(hands.take(), ["a"], batches=1, data="d1")
    batch = hands.take()
    hands.mark(batch, "a")
    hands.end(batch)
    assert hands.run(ended).state.final
    live = submit(hands, "books")
    hands.prepared(hands.take(), ["a"], batches=1, data="d1")
    hands.take()
    submit(hands, "elsewhere")
    hands.prepared(hands.take(), ["a"], batches=1, data="d1")
    uses = hands.store.snapshots.uses("books", ["d1", "d2"])
    assert uses.runs == {"d1": [live, ended], "d2": []}
    assert uses.live == {"d1": [live], "d2": []}
    assert uses.wanted == {}


def test_a_run_that_waits_wants_the_snapshot_it_was_submitted_with(hands: Hands) -> None:
    run = submit(hands, "books", OPTIONS)
    assert hands.store.snapshots.uses("books", []).wanted == {"month-end": [run]}
    assert hands.store.snapshots.uses("elsewhere", []).wanted == {}
    claim = hands.take()
    assert (claim.snapshot, claim.data_id) == ("month-end", None)
    hands.end(claim, TaskState.ERRORED)
    assert hands.store.snapshots.uses("books", []).wanted == {}


def test_the_snapshots_name_is_kept_with_the_leg(hands: Hands) -> None:
    run = submit(hands, "books", OPTIONS)
    hands.prepared(hands.take(), ["a"], data="d1", snapshot="month-end")
    assert hands.run(run).candidate.snapshot == "month-end"
    unnamed = submit(hands, "books")
    claim = hands.take()
    while claim.task.run != unnamed:
        claim = hands.take()
    hands.prepared(claim, ["a"], data="d2")
    assert hands.run(unnamed).candidate.snapshot == "d2", "one without a name is called by its data id"


def test_with_two_sources_each_leg_wants_its_own(hands: Hands) -> None:
    baseline = NewLeg("baseline", "main", "c" * 40, "s", "a", "f", SPEC, "d", "old")
    options = {"baseline_database": "old", "baseline_snapshot": "b", "snapshot": "a"}
    new = replace(hands.new(source="new", legs=(baseline,)), options=options)
    run = hands.store.runs.add(new, key=None, body="")[0].id
    assert hands.store.snapshots.uses("old", []).wanted == {"b": [run]}
    assert hands.store.snapshots.uses("new", []).wanted == {"a": [run]}
    claims = [hands.take("w1"), hands.take("w2")]
    assert {claim.task.leg: claim.snapshot for claim in claims} == {"baseline": "b", "candidate": "a"}
