"""The comparer with its real child: what it records, and what becomes of a pair whose comparison is killed."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hands import Hands

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_store import Store
from jobs.compare_child import Child
from jobs.comparer import Comparer
from jobs.comparing import Compared, UnitClass
from jobs.new_run import NewLeg
from jobs.overview import EVERY_UNIT
from jobs.run import Verdict
from runner.model import Output, UnitResult, UnitState

SPEC = """\
version: 1
workspace: {image: debian}
units: [a, b]
run: bin/export
compare: {rules: [{match: '*', key: [id], tolerance: {absolute: 0.01}}]}
"""
KILLED = "read line; kill -9 $$"
Done = Callable[..., Compared]


@pytest.fixture
def hands(tmp_path: Path, migrated: Path) -> Hands:
    store = tmp_path / "seatrial.db"
    store.write_bytes(migrated.read_bytes())
    return Hands(Store.open(f"sqlite:///{store}"))


@pytest.fixture
def compared(hands: Hands, tmp_path: Path) -> Done:
    """Do a compare run of two units whose baselines are given, and give what became of the first one."""

    def do(candidate: str, *, child: Child | None = None, baseline: str = "id,n\n1,1.00\n") -> Compared:
        objects = FileObjects(tmp_path / "objects")
        legs = [NewLeg(name, "r", "c" * 40, "s", "a", "f", SPEC, "d") for name in ("baseline", "candidate")]
        new = hands.new()
        run = hands.store.runs.add(type(new)(**vars(new) | {"legs": tuple(legs)}), key=None, body="")[0].id
        for claim in (hands.take(), hands.take()):
            hands.prepared(claim, ["a", "b"], batches=1)
        for claim in (hands.take(), hands.take()):
            texts = {"a": baseline if claim.task.leg == "baseline" else candidate, "b": "id,n\n2,2\n"}
            results = []
            for unit, text in texts.items():
                digest, size = objects.put(io.BytesIO(text.encode()))
                results.append(UnitResult(unit, UnitState.DONE, Output(f"{unit}.csv", digest, size)))
            hands.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
            hands.end(claim)
        spool = tmp_path / "spool"
        spool.mkdir(exist_ok=True)
        comparer = Comparer(hands.store, objects, spool, child=child)
        try:
            assert not comparer.pass_once()
            assert not comparer.pass_once()
        finally:
            comparer._child.close()
        found = hands.run(run)
        first, second = hands.store.compare_views.by_position(run, EVERY_UNIT, after=-1, limit=9)
        assert second.kind is UnitClass.SAME
        assert found.verdict is (Verdict.DIFFERENT if first.kind is UnitClass.DIFFERENT else Verdict.PASSED)
        return first

    return do


def test_within_the_rules(compared: Done) -> None:
    assert compared("id,n\n1,1.005\n").kind is UnitClass.EQUIVALENT


def test_outside_of_the_rules(compared: Done) -> None:
    found = compared("id,n\n1,1.5\n")
    assert (found.kind, found.changed, found.largest) == (UnitClass.DIFFERENT, 1, 0.5)
    assert found.rows is not None


def test_a_child_that_is_killed_once_is_asked_again(compared: Done, tmp_path: Path) -> None:
    mark = shlex.quote(str(tmp_path / "mark"))
    real = f"exec {shlex.quote(sys.executable)} -m jobs.compare_child"
    child = Child(("sh", "-c", f"[ -e {mark} ] && {real}; touch {mark}; {KILLED}"))
    assert compared("id,n\n1,1.005\n", child=child).kind is UnitClass.EQUIVALENT


def test_a_pair_that_kills_its_child_is_recorded_with_its_reason(compared: Done) -> None:
    found = compared("id,n\n1,1.005\n", child=Child(("sh", "-c", KILLED)))
    assert found.kind is UnitClass.DIFFERENT
    [note] = found.summary["notes"]
    assert note["code"] == "unreadable"
    assert "more memory or time than a comparison may have" in note["text"]


def test_a_child_without_an_answer_is_no_harm_to_the_next_pair(compared: Done) -> None:
    assert compared("id,n\n1,1.005\n", child=Child(("true",))).kind is UnitClass.DIFFERENT
