"""Retention in the store: what refers to an object, what is removed in which order, and what must stay."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hands import OUTPUT, Hands
from sqlalchemy import func, select, text

from jobs.adapters import sql_keeping, sql_retention
from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_schema import (
    attempts,
    comparisons,
    events,
    executions,
    legs,
    log_chunks,
    noise,
    removals,
    runs,
    steps,
    tasks,
    units,
)
from jobs.adapters.sql_tasks import Claim
from jobs.comparing import Compared, Pair, Side, UnitClass
from jobs.noise import Noise
from jobs.pruning import Pruning
from jobs.retention import Rule, Rules
from jobs.run import RunState, TaskState
from runner.errors import Conflict, Gone, NotFound
from runner.model import Output, Reason, UnitResult, UnitState
from runner.quota import Used

DAY = 86_400.0
WHY = "90d after the run's end (server.keep_outputs)"
BAD = Reason("units_failed", "no")


def later() -> float:
    return time.time() + 60.0


def age(hands: Hands, run: int, days: float) -> None:
    """Let a run have ended so long ago, and its outputs have been removed as long ago if they were."""
    with hands.store.database.write() as connection:
        back = {"s": days * DAY, "run": run}
        connection.execute(text("UPDATE runs SET finished_at = finished_at - :s WHERE id = :run"), back)
        connection.execute(text("UPDATE runs SET outputs_removed_at = outputs_removed_at - :s WHERE id = :run"), back)


def over(hands: Hands, *, days: float = 100.0) -> int:
    """Give a run that passed long ago."""
    run = hands.submit()
    hands.finish(run)
    hands.clean(run)
    age(hands, run, days)
    return run


def remove_outputs(hands: Hands, run: int) -> bool:
    return hands.store.retention.remove_outputs(run, before=time.time() - 90 * DAY, why=WHY)


def remove_run(hands: Hands, run: int) -> bool:
    return hands.store.retention.remove_run(run, before=time.time() - 90 * DAY, why=WHY)


def shred(hands: Hands) -> int:
    rounds = 0
    while hands.store.retention.shred():
        rounds += 1
    return rounds


def rows(hands: Hands, run: int) -> dict[str, int]:
    """Count what is left of a run."""
    with hands.store.database.read() as connection:
        ids = list(connection.scalars(select(tasks.c.id).where(tasks.c.run == run)))
        found = {}
        for table in (runs, legs, tasks, attempts, executions, steps, units, log_chunks, events, comparisons, noise):
            here = table.c.task.in_(ids) if table is log_chunks else table.c.id == run if table is runs else None
            here = table.c.run == run if here is None else here
            found[table.name] = connection.execute(select(func.count()).select_from(table).where(here)).scalar_one()
    return found


# ---- what refers to an object ----

Refer = Callable[[Hands, FileObjects, Claim], None]


def put(objects: FileObjects, data: bytes) -> str:
    return objects.put(io.BytesIO(data))[0]


def manifest(objects: FileObjects, *files: bytes) -> Output:
    entries = {str(number): {"digest": put(objects, data), "size": len(data)} for number, data in enumerate(files)}
    return Output("all", put(objects, json.dumps(entries).encode()), sum(map(len, files)), tree=True)


def by_output(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    output = Output("a.csv", put(objects, b"an output"), 9)
    result = UnitResult("a", UnitState.DONE, output)
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)


def by_manifest(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    result = UnitResult("a", UnitState.DONE, manifest(objects, b"one of", b"several"))
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)


def by_log(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    digest = put(objects, b"a long piece of a log")
    hands.store.ledger.append_log(claim.task.id, claim.task.attempt, b"x" * 21, object_digest=digest, source=None)


def by_resume_point(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    output = Output("all", put(objects, b"{}"), 0, tree=True)
    hands.store.ledger.resume_point(claim.task.id, claim.task.attempt, "half", output)


def by_manifest_of_resume_point(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    output = manifest(objects, b"written", b"so far")
    hands.store.ledger.resume_point(claim.task.id, claim.task.attempt, "half", output)


def by_comparison(hands: Hands, objects: FileObjects, claim: Claim) -> None:
    found = Compared("a", 0, UnitClass.DIFFERENT, changed=1, rows=put(objects, b"[]"))
    pair = Pair(found.unit, found.position, None, Side(UnitState.TODO))
    hands.store.compare.record(claim.task.run, [(pair, found)])


REFERENCES = [by_comparison, by_output, by_manifest, by_log, by_resume_point, by_manifest_of_resume_point]


def pruning(hands: Hands, root: Path, objects: FileObjects, *, keep: float | None = 90 * DAY) -> Pruning:
    """Part with everything at once that may go; all objects are a day old."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 2 * DAY,) * 2)
    stamp = root.with_name(".swept")
    stamp.touch()
    os.utime(stamp, (0, 0))
    rules = Rules(Rule(keep, "server.keep_outputs"), Rule(None, "server.keep_runs"))
    return Pruning(hands.store, objects, lambda _: rules, stamp, steady=0.0)


@pytest.mark.parametrize("refer", REFERENCES)
def test_an_object_stays_while_something_refers_to_it(hands: Hands, tmp_path: Path, refer: Refer) -> None:
    root = tmp_path / "objects"
    objects = FileObjects(root)
    run, claim = hands.verifying()
    refer(hands, objects, claim)
    kept = {one.digest for one in objects.walk()}
    garbage = put(objects, b"nobody's")
    assert [done.what for done in pruning(hands, root, objects).tidy()] == ["objects"]
    assert {one.digest for one in objects.walk()} == kept
    assert not objects.has(garbage)
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    age(hands, run, 100)
    assert [done.what for done in pruning(hands, root, objects).tidy()] == ["outputs", "objects"]
    assert list(objects.walk()) == []


def test_what_two_runs_have_alike_stays_for_the_second(hands: Hands, tmp_path: Path) -> None:
    root = tmp_path / "objects"
    objects = FileObjects(root)
    first, claim = hands.verifying(["a"])
    by_manifest(hands, objects, claim)
    hands.end(claim)
    hands.clean(first)
    age(hands, first, 100)
    second, claim = hands.verifying(["a"])
    by_manifest(hands, objects, claim)
    hands.end(claim)
    assert [done.what for done in pruning(hands, root, objects).tidy()] == ["outputs"]
    assert len(list(objects.walk())) == 3
    assert hands.run(first).removed is not None
    assert hands.run(second).removed is None


def test_an_object_that_was_stored_within_a_day_stays(hands: Hands, tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "objects")
    one = pruning(hands, tmp_path / "objects", objects)
    digest = put(objects, b"on its way into the records")
    assert list(one.tidy()) == []
    assert objects.has(digest)


def test_references_of_a_long_list_are_read_in_pieces(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_keeping, "UNITS_AT_ONCE", 3)
    names = [f"u{number}" for number in range(10)]
    run, claim = hands.verifying(names)
    marks = [UnitResult(n, UnitState.DONE, Output("x", f"{i:064x}", 1)) for i, n in enumerate(names)]
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, marks, None)
    assert sorted(hands.store.keeping.references()) == [(f"{number:064x}", False) for number in range(10)]
    assert run


def test_a_list_that_comes_in_another_order_meanwhile_loses_no_reference(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_keeping, "UNITS_AT_ONCE", 3)
    names = [f"u{number}" for number in range(10)]
    run, claim = hands.verifying(names)
    marks = [UnitResult(n, UnitState.DONE, Output("x", f"{i:064x}", 1)) for i, n in enumerate(names[:9])]
    hands.store.ledger.mark(claim.task.id, claim.task.attempt, marks, None)
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    hands.store.runs.resume(run, "mio")
    found = hands.store.keeping.references()
    read = {next(found)[0]}
    hands.prepared(hands.take(), names[::-1])
    assert [unit.unit for unit in hands.units(run)] == names[::-1]
    assert read | {digest for digest, _ in found} == {f"{number:064x}" for number in range(9)}


# ---- outputs ----


def test_outputs_go_once_and_the_run_says_so(hands: Hands) -> None:
    run = over(hands)
    (one,) = hands.store.retention.ended("accounts", before=time.time(), outputs_left=True, limit=9)
    assert (one.run, one.outputs_removed_at, one.needed, one.measure) == (run, None, False, True)
    assert remove_outputs(hands, run)
    assert not remove_outputs(hands, run)
    removed = hands.run(run).removed
    assert removed is not None
    assert removed.text == f"Outputs and log were removed on {removed.at:%Y-%m-%d}, {WHY}."
    assert [event.data for event in hands.events(run, "outputs_removed")] == [{"why": WHY}]
    assert hands.store.retention.ended("accounts", before=time.time(), outputs_left=True, limit=9) == []
    assert list(hands.store.keeping.references()) == []
    assert hands.units(run)[0].output is not None, "name, size and digest stay"


def test_outputs_of_a_run_that_is_not_over_stay(hands: Hands) -> None:
    young = over(hands, days=89)
    assert not remove_outputs(hands, young)
    living, claim = hands.verifying()
    assert not hands.store.retention.remove_outputs(living, before=later(), why=WHY)
    hands.end(claim, TaskState.FAILED, BAD)
    assert hands.run(living).state is RunState.FAILED
    assert not hands.store.retention.remove_outputs(living, before=later(), why=WHY), "it is not cleaned up yet"
    token = hands.cleaning(living)
    assert not hands.store.retention.remove_outputs(living, before=later(), why=WHY), "it is being cleaned up"
    hands.store.runs.cleaned(living, token)
    assert hands.store.retention.remove_outputs(living, before=later(), why=WHY)
    assert not hands.store.retention.remove_outputs(12_345, before=later(), why=WHY)


def test_a_run_without_outputs_is_not_resumed_but_run_again(hands: Hands) -> None:
    run, claim = hands.verifying()
    hands.mark(claim, "a")
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    age(hands, run, 100)
    assert remove_outputs(hands, run)
    with pytest.raises(Conflict, match=r"were removed on .*keep_outputs") as refused:
        hands.store.runs.resume(run, "mio")
    assert refused.value.remedy is not None
    assert f"seatrial rerun {run}" in refused.value.remedy
    assert hands.run(run).state is RunState.FAILED
    assert [leg.name for leg in hands.store.runs.new_legs(run)] == ["candidate"]


def test_a_run_that_was_resumed_keeps_its_outputs(hands: Hands) -> None:
    run, claim = hands.verifying()
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    age(hands, run, 100)
    hands.store.runs.resume(run, "mio")
    assert not remove_outputs(hands, run)


def test_a_log_goes_in_pieces(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_retention, "PIECE", 10)
    run, claim = hands.verifying()
    for _ in range(35):
        hands.log(claim, b"line\n")
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    age(hands, run, 100)
    before = rows(hands, run)
    assert remove_outputs(hands, run)
    assert rows(hands, run)["log_chunks"] == 35
    assert hands.store.retention.shred()
    assert rows(hands, run)["log_chunks"] == 25
    assert shred(hands) == 4, "three more pieces, and the end"
    assert rows(hands, run) == before | {"log_chunks": 0, "events": before["events"] + 1}
    assert hands.tasks(run)[1].log_size == 175, "how long it was stays"


# ---- runs ----


def test_a_run_goes_after_its_outputs_and_leaves_word(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_retention, "PIECE", 3)
    run, claim = hands.verifying([f"u{number}" for number in range(8)])
    hands.mark(claim, "u1", "u2")
    hands.log(claim, b"line\n")
    ledger = hands.store.ledger
    alone = Pair("u1", 0, None, Side(UnitState.TODO))
    hands.store.compare.record(run, [(alone, Compared("u1", 0, UnitClass.SAME, noise=Noise()))])
    ledger.step(claim.task.id, claim.task.attempt, "run", state="done", seconds=1.0, detail="")
    ledger.execution(claim.task.id, claim.task.attempt, 1, state="ended", container="c", exit_code=1)
    hands.end(claim, TaskState.FAILED, BAD)
    hands.clean(run)
    age(hands, run, 100)
    other = over(hands)
    left = rows(hands, other)
    assert not remove_run(hands, run), "its outputs are there"
    assert remove_outputs(hands, run)
    assert not remove_run(hands, run), "they went a moment ago"
    assert min(rows(hands, run).values()) > 0
    age(hands, run, 1)
    (one,) = hands.store.retention.ended("accounts", before=time.time() - DAY, outputs_left=False, limit=9)
    assert one.run == run
    assert remove_run(hands, run)
    assert not remove_run(hands, run)
    with pytest.raises(Gone, match=rf"Run {run} was removed on .*keep_outputs"):
        hands.run(run)
    with pytest.raises(Gone):
        hands.store.runs.resume(run, "mio")
    with pytest.raises(Gone):
        hands.store.runs.cancel(run, "mio")
    assert list(hands.store.keeping.references()) != [], "the other's"
    assert shred(hands) > 8
    assert set(rows(hands, run).values()) == {0}
    assert rows(hands, other) == left
    with hands.store.database.read() as connection:
        assert [(row.run, row.what, row.left) for row in connection.execute(select(removals))] == [(run, "run", False)]
    with pytest.raises(NotFound, match="There is no run"):
        hands.run(12_345)


def ready(hands: Hands) -> int:
    """Give a run that may go, and a newer one from which the next takes its durations."""
    run = over(hands)
    over(hands)
    assert remove_outputs(hands, run)
    age(hands, run, 1)
    return run


def test_the_run_that_the_next_one_is_measured_by_stays(hands: Hands) -> None:
    run = over(hands)
    assert remove_outputs(hands, run)
    age(hands, run, 1)
    assert not remove_run(hands, run)
    assert hands.store.retention.ended("accounts", before=time.time(), outputs_left=False, limit=9) == []
    newest = hands.submit()
    assert hands.store.ledger.durations("accounts", "candidate", before=newest) != {}
    hands.finish(newest)
    assert remove_run(hands, run), "a newer one takes its place"


def test_what_a_living_run_repeats_stays(hands: Hands) -> None:
    run = over(hands)
    child = hands.submit()
    with hands.store.database.write() as connection:
        connection.execute(runs.update().where(runs.c.id == child).values(parent=run))
    (one,) = hands.store.retention.ended("accounts", before=time.time(), outputs_left=True, limit=9)
    assert one.needed
    assert not remove_outputs(hands, run)
    hands.finish(child)
    assert remove_outputs(hands, run)
    age(hands, run, 1)
    assert remove_run(hands, run)


def test_what_an_idempotency_key_names_stays(hands: Hands) -> None:
    run = ready(hands)
    with hands.store.database.write() as connection:
        words = {"run": run, "at": time.time()}
        insert = "INSERT INTO idempotency (\"user\", key, body, run, created_at) VALUES ('mio', 'k', 'b', :run, :at)"
        connection.execute(text(insert), words)
    assert not remove_run(hands, run)
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE idempotency SET created_at = created_at - 90000"))
    assert remove_run(hands, run)
    with hands.store.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM idempotency")).scalar_one() == 0


def test_projects_that_are_in_no_settings_are_found(hands: Hands) -> None:
    hands.submit(project="b")
    hands.submit(project="a")
    hands.submit(project="b")
    assert hands.store.retention.projects() == ["a", "b"]


# ---- for want of room ----


def take_over(hands: Hands, run: int, source: int, units: int = 2) -> None:
    """Let a run have taken over units of an earlier one."""
    record = {"run": source, "leg": "candidate", "units": units, "differs": []}
    with hands.store.database.write() as connection:
        connection.execute(legs.update().where(legs.c.run == run).values(reused=record))


def test_who_was_taken_over_from_or_repeated_was_used_then(hands: Hands) -> None:
    taken, repeated, looked_at, plain = (over(hands) for _ in range(4))
    take_over(hands, hands.submit(), taken)
    take_over(hands, hands.submit(), looked_at, units=0)
    leg = hands.new()
    child = hands.store.runs.add(replace(leg, parent=repeated), key=None, body="")[0]
    used = hands.store.retention.last_used()
    assert sorted(used) == [taken, repeated]
    assert used[repeated] == pytest.approx(child.created_at.timestamp())
    assert plain not in used


def test_what_a_living_run_has_taken_over_stays(hands: Hands) -> None:
    source = over(hands)
    living = hands.submit()
    take_over(hands, living, source)
    assert not remove_outputs(hands, source)
    [found] = hands.store.retention.ended("accounts", before=later(), outputs_left=True, limit=9)
    assert found.needed
    hands.finish(living)
    assert remove_outputs(hands, source)


def test_what_a_run_holds_is_its_outputs_and_its_log(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"], batches=1)
    hands.mark(claim, "a", "b")
    hands.mark(claim, "c", failed=True)
    hands.log(claim, b"x" * 100)
    assert hands.store.retention.holds(run) == Used(2 * OUTPUT.size + 100, 2)
    assert hands.store.retention.holds(4711) == Used()
