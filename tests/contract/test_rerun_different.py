"""A rerun of what differed: never passed for want of units, and what it goes by stays."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hands import SPEC, Hands
from sqlalchemy import update

from jobs import worker as worker_module
from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_schema import runs
from jobs.adapters.sql_tasks import Claim
from jobs.comparing import Compared, UnitClass, classify
from jobs.new_run import NewLeg
from jobs.run import RunState
from jobs.worker import Place, Slot
from runner.model import Prepared

BASELINE = NewLeg("baseline", "v1", "b" * 40, "subject", "author", "f", SPEC, "d")


class Bell:
    def ring(self, pool: str, task: int) -> None:
        pass


class Preparing:
    """A slot whose preparations find the units that the test says."""

    def __init__(self, hands: Hands, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Runtime:
            objects = FileObjects(path / "objects")

        place = Place("w1", "h1", "local", os.getpid(), 1, "test", 60.0)
        self.slot = Slot(place, hands.store, Bell(), Runtime())  # type: ignore[arg-type]
        self.listed: Sequence[str] = ()

        def run(*_: Any) -> Prepared:
            return Prepared("image", "sha256:1", tuple(self.listed), None)

        monkeypatch.setattr(worker_module.pipeline, "run", run)

    def do(self, claim: Claim, listed: Sequence[str]) -> None:
        self.listed = listed
        self.slot.do(claim)


@pytest.fixture
def preparing(hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preparing:
    return Preparing(hands, tmp_path, monkeypatch)


def differed(hands: Hands) -> int:
    """Give a run that is done, of which `a` differs and `b` does not."""
    run = hands.submit(legs=(BASELINE,))
    for claim in [hands.take("w1"), hands.take("w2")]:
        hands.prepared(claim, ["a", "b"], batches=1)
    for claim in [hands.take("w1"), hands.take("w2")]:
        hands.mark_outputs(claim, {"a": "1" if claim.task.leg == "baseline" else "2", "b": "1"})
        hands.end(claim)
    pairs = hands.store.compare.ready(run, 10)
    found = [(one, Compared(one.unit, one.position, classify(one) or UnitClass.DIFFERENT)) for one in pairs]
    hands.store.compare.record(run, found)
    assert hands.store.compare.close(run)
    assert hands.store.compare.harmed(run) == {"a"}
    return run


def again(hands: Hands, of: int) -> int:
    new = replace(hands.new(legs=(BASELINE,)), options={"only_of": of}, parent=of)
    return hands.store.runs.add(new, key=None, body="")[0].id


def legs(hands: Hands) -> dict[str, Claim]:
    return {claim.task.leg: claim for claim in (hands.take("w1"), hands.take("w2"))}


@pytest.mark.parametrize("first", ["baseline", "candidate"])
def test_no_leg_lists_any_of_the_units_any_more(hands: Hands, preparing: Preparing, first: str) -> None:
    run = again(hands, differed(hands))
    claims = legs(hands)
    preparing.do(claims.pop(first), ["b", "c"])
    preparing.do(*claims.values(), ["b", "c"])
    hands.store.compare.close(run)
    now = hands.run(run)
    assert (now.state, now.verdict) == (RunState.FAILED, None)
    assert now.reason is not None
    assert now.reason.code == "units_filter_empty"


@pytest.mark.parametrize("lists", [("a",), ("b",)])
@pytest.mark.parametrize("first", ["baseline", "candidate"])
def test_one_leg_alone_may_lack_them(hands: Hands, preparing: Preparing, first: str, lists: tuple[str, ...]) -> None:
    run = again(hands, differed(hands))
    claims = legs(hands)
    preparing.do(claims.pop(first), lists)
    preparing.do(*claims.values(), ["b"] if lists == ("a",) else ["a"])
    assert hands.run(run).state is RunState.RUNNING
    assert {unit.unit for unit in hands.units(run)} == {"a"}


def test_what_the_other_one_differed_in_was_forgotten(hands: Hands, preparing: Preparing) -> None:
    """The run that it goes by was resumed and is compared anew, while this one waits."""
    of = differed(hands)
    run = again(hands, of)
    with hands.store.database.write() as connection:
        connection.exec_driver_sql(f"DELETE FROM comparisons WHERE run = {of}")
    for claim in legs(hands).values():
        preparing.do(claim, ["a", "b"])
    hands.store.compare.close(run)
    assert hands.run(run).state is RunState.FAILED


def test_what_a_living_run_takes_its_units_from_stays(hands: Hands) -> None:
    of = differed(hands)
    hands.clean(of)
    child = again(hands, of)
    with hands.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == child).values(parent=None))  # a rerun of a rerun has another
    later = time.time() + 60.0
    assert not hands.store.retention.remove_outputs(of, before=later, why="age")
    hands.store.runs.cancel(child, "mio")
    assert hands.store.retention.remove_outputs(of, before=later, why="age")
