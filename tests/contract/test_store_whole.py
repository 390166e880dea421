"""Which earlier leg spares a baseline's preparation, in the store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hands import SPEC, Hands
from sqlalchemy import update

from jobs.adapters.sql_schema import legs, runs
from jobs.adapters.sql_tasks import Claim
from jobs.new_run import NewLeg
from jobs.run import TaskState
from runner.model import Known, Prepared, Template

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")


def finished(hands: Hands, *, failing: str = "", **more: Any) -> int:
    """Give a run of the baseline's commit alone, that finished its units."""
    run = hands.submit(name="candidate", **more)
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run == run).values(commit=BASELINE.commit))
    hands.prepared(hands.take(), ["a", "b"], batches=1, data="d1")
    claim = hands.take()
    hands.mark(claim, *(unit for unit in ("a", "b") if unit != failing))
    if failing:
        hands.mark(claim, failing, failed=True)
    hands.end(claim, TaskState.FAILED if failing else TaskState.DONE)
    return run


def asking(hands: Hands, *, leg: NewLeg = BASELINE, **more: Any) -> tuple[int, Claim]:
    """Submit a compare run, and claim its baseline's preparation."""
    run = hands.submit(legs=(leg,), **more)
    return run, next(claim for claim in (hands.take(), hands.take()) if claim.task.leg == "baseline")


def test_all_units_of_the_newest_leg_are_finished(hands: Hands) -> None:
    old = finished(hands)
    run, claim = asking(hands)
    known = hands.store.reuse.whole(run, migrations=False)
    assert known == Known(old, "candidate", "sha256:1", "d1", ("a", "b"))
    assert hands.store.reuse.whole(run, migrations=True) is None, "that one was migrated"
    finished_later = finished(hands)
    assert finished_later > run
    result = Prepared("image", "sha256:1", ("a", "b"), Template("verification", "leg", "app", "d1"), known)
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.run, set(reuse.units)) == (old, {"a", "b"})
    hands.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [tuple(names)], reuse=reuse)
    assert hands.store.reuse.whole(run, migrations=False) is None, "it was prepared before"


def test_an_older_leg_is_not_looked_for_behind_one_with_a_failed_unit(hands: Hands) -> None:
    finished(hands)
    finished(hands, failing="b")
    run, _ = asking(hands)
    assert hands.store.reuse.whole(run, migrations=False) is None


@pytest.mark.parametrize("wanted", ["a", None])
def test_the_filter_has_to_be_the_same(hands: Hands, wanted: str | None) -> None:
    finished(hands, units_filter="a" if wanted is None else "b")
    run, _ = asking(hands, units_filter=wanted)
    assert hands.store.reuse.whole(run, migrations=False) is None


def test_only_a_leg_with_the_same_source_is_looked_at(hands: Hands) -> None:
    old = finished(hands, source="books")
    finished(hands, source="copy")
    run, _ = asking(hands, leg=replace(BASELINE, database="books"))
    known = hands.store.reuse.whole(run, migrations=False)
    assert known == Known(old, "candidate", "sha256:1", "d1", ("a", "b"))
    result = Prepared("image", "sha256:1", ("a", "b"), Template("books", "leg", "app", "d1"))
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert (reuse and reuse.run) == old, "the newer one has the same data id, and another source"
    run, _ = asking(hands, leg=replace(BASELINE, database="third"))
    assert hands.store.reuse.whole(run, migrations=False) is None
    reuse = hands.store.reuse.find(run, "baseline", result, migrations=False)
    assert reuse is not None
    assert (reuse.differs, reuse.units) == (("database",), {}), "it is told, and nothing is taken"


def test_a_run_of_some_units_only_is_none(hands: Hands) -> None:
    old = finished(hands)
    with hands.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == old).values(options={"only_of": 1}))
    run, _ = asking(hands)
    assert hands.store.reuse.whole(run, migrations=False) is None


def test_another_specification_or_removed_outputs(hands: Hands) -> None:
    old = finished(hands)
    run, _ = asking(hands)
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run == old).values(spec_digest="other"))
    assert hands.store.reuse.whole(run, migrations=False) is None
    with hands.store.database.write() as connection:
        connection.execute(update(legs).where(legs.c.run == old).values(spec_digest=replace(BASELINE).spec_digest))
        connection.execute(update(runs).where(runs.c.id == old).values(outputs_removed_at=1.0))
    assert hands.store.reuse.whole(run, migrations=False) is None
