"""The ledger in the store: log bytes, marks, steps, what a viewer is told. SQLite in a file, in memory, PostgreSQL."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hands import OUTPUT, Hands
from sqlalchemy import text

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_ledger import INLINE_BYTES
from jobs.attempts import Work
from jobs.run import Verdict
from jobs.service import Service
from runner.errors import NotFound
from runner.model import Output, Reason, UnitResult, UnitState


def service(hands: Hands, root: Path) -> Service:
    return Service(None, hands.store, FileObjects(root / "objects"), None, None)  # type: ignore[arg-type]


# ---- the log ----


def test_a_log_is_byte_exact_at_every_offset_and_over_every_boundary(hands: Hands, tmp_path: Path) -> None:
    run, claim = hands.verifying()
    generator = random.Random(7)
    whole = b""
    objects = FileObjects(tmp_path / "objects")
    for size in (1, 3, INLINE_BYTES, INLINE_BYTES + 1, 100_000, 7, 65_536, 2):
        data = generator.randbytes(size)
        digest = objects.put(io.BytesIO(data))[0] if size > INLINE_BYTES else None
        new = hands.store.ledger.append_log(claim.task.id, 1, data, object_digest=digest, source=None, at=len(whole))
        whole += data
        assert new == len(whole)
    site = service(hands, tmp_path)
    task = claim.task.id
    assert hands.store.inside.task(task).log_size == len(whole)
    assert b"".join(site.open_log(task)) == whole
    for _ in range(60):
        offset, limit = generator.randrange(len(whole) + 5), generator.randrange(1, 150_000)
        assert site.log(task, offset=offset, limit=limit) == whole[offset : offset + limit]
        assert b"".join(site.open_log(task, offset=offset)) == whole[offset:]
    assert site.log(task, offset=len(whole)) == b""
    assert site.log(task, offset=len(whole) + 999_999) == b""
    assert site.log(hands.tasks(run)[0].id) == b""


def test_many_small_chunks_come_whole(hands: Hands, tmp_path: Path) -> None:
    _, claim = hands.verifying()
    for number in range(600):
        hands.log(claim, b"%04d\n" % number)
    site = service(hands, tmp_path)
    assert b"".join(site.open_log(claim.task.id)) == b"".join(b"%04d\n" % number for number in range(600))


def test_an_append_whose_answer_got_lost_is_asked_again_and_stands_once(hands: Hands, tmp_path: Path) -> None:
    _, claim = hands.verifying()
    hands.store.ledger.execution(claim.task.id, 1, 1, state="running", container="c", exit_code=None)
    assert hands.log(claim, b"one\n", at=0, source=(1, 4)) == 4
    assert hands.log(claim, b"one\n", at=0, source=(1, 4)) == 4
    assert hands.log(claim, b"two\n", at=4, source=(1, 8)) == 8
    with pytest.raises(ValueError, match="8 bytes, not 5"):
        hands.log(claim, b"three", at=5)
    assert service(hands, tmp_path).log(claim.task.id) == b"one\ntwo\n"
    assert hands.store.ledger.offsets(claim.task.id, 1) == (8, 0)


def test_an_object_that_is_gone_is_said_to_be(hands: Hands, tmp_path: Path) -> None:
    _, claim = hands.verifying()
    hands.store.ledger.append_log(claim.task.id, 1, b"x" * 20_000, object_digest="ab" * 32, source=None)
    with pytest.raises(NotFound, match="not in the store any more"):
        service(hands, tmp_path).log(claim.task.id)


# ---- marks ----


def test_marks_are_counted_once_however_often_they_come(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"])
    hands.store.ledger.execution(claim.task.id, 1, 1, state="running", container="c", exit_code=None)
    for _ in range(3):
        hands.mark(claim, "a", "b", source=(1, 4))
    hands.mark(claim, "a", failed=True)  # what is finished stays
    hands.mark(claim, "nobody's")
    found = hands.run(run)
    assert (found.units.done, found.units.failed) == (2, 0)
    assert (hands.tasks(run)[1].units_done, hands.done(run)) == (2, {"a", "b"})
    assert hands.store.ledger.offsets(claim.task.id, 1) == (0, 4)
    assert hands.store.ledger.offsets(claim.task.id, 2) == (0, 0)


def test_a_mark_of_another_batch_does_not_count(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c", "d"], batches=2)
    hands.mark(claim, "a", "c")
    assert hands.done(run) == {"a"}
    hands.mark(hands.take(), "a", "c")
    assert hands.done(run) == {"a", "c"}
    assert hands.run(run).units.done == 2


def test_what_a_mark_says_is_kept(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    output = Output("a.tar", "cd" * 32, 5_000_000_000, tree=True)
    results = [
        UnitResult("a", UnitState.DONE, output, "", 0.25),
        UnitResult("b", UnitState.FAILED, None, "no\tno", 2.0),
    ]
    hands.store.ledger.mark(claim.task.id, 1, results, None)
    one, two = hands.units(run)
    assert (one.output, one.seconds, one.attempt) == (output, 0.25, 1)
    assert (two.state, two.text, two.output) == (UnitState.FAILED, "no\tno", None)
    assert hands.store.inside.unit_seconds(run) == (2, 2.25)


def test_a_void_takes_a_mark_back_and_says_why(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"])
    hands.mark(claim, "a")
    hands.mark(claim, "b", failed=True)
    for _ in range(2):
        hands.store.ledger.void(claim.task.id, 1, "a", "its output changed")
        hands.store.ledger.void(claim.task.id, 1, "b", "again")
        hands.store.ledger.void(claim.task.id, 1, "unknown", "…")
    found = hands.run(run)
    assert (found.units.done, found.units.failed) == (0, 0)
    assert [event.data["unit"] for event in hands.events(run, "void")] == ["a", "b"]
    assert hands.units(run)[0].output is None
    hands.mark(claim, "a", "b")
    hands.end(claim)
    assert hands.run(run).verdict is Verdict.PASSED


def test_a_void_reaches_no_other_batch(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"], batches=2)
    hands.mark(claim, "a")
    hands.store.ledger.void(hands.take().task.id, 1, "a", "…")
    assert hands.done(run) == {"a"}


def test_ten_thousand_marks_in_one_go(hands: Hands) -> None:
    names = [f"u{number:05}" for number in range(10_000)]
    run, claim = hands.verifying(names)
    assert claim.units == tuple(names)
    if not hands.store.database.is_sqlite:  # a planner that thinks them few reads them all for each one
        with hands.store.database.read() as connection:
            assert (
                connection.execute(text("SELECT reltuples FROM pg_class WHERE relname = 'units'")).scalar_one()
                >= 10_000
            )
    hands.mark(claim, *names)
    assert hands.run(run).units.done == 10_000
    assert hands.end(claim).value == "done"


# ---- steps, executions, tokens ----


def test_steps_begin_and_end_and_can_come_again(hands: Hands) -> None:
    run, claim = hands.verifying()
    step = hands.store.ledger.step
    for name, state, seconds in (
        ("clone", "running", None), ("clone", "running", None), ("clone", "done", 0.5), ("clone", "done", 0.5),
        ("clone", "running", None), ("clone", "failed", 0.7), ("image", "done", 1.0), ("image", "done", 1.0),
    ):  # fmt: skip
        step(claim.task.id, 1, name, state=state, seconds=seconds, detail="")
    found = [(one.name, one.state, one.seconds) for one in hands.store.inside.steps(run)]
    assert found == [("clone", "done", 0.5), ("clone", "failed", 0.7), ("image", "done", 1.0)]


def test_executions_are_numbered_once_and_the_one_that_stands_is_found(hands: Hands) -> None:
    _, claim = hands.verifying()
    ledger, task = hands.store.ledger, claim.task.id
    assert ledger.live_execution(task) is None
    assert [ledger.next_execution(task, 1) for _ in range(3)] == [1, 2, 3]
    for number in (2, 3):
        ledger.execution(task, 1, number, state="running", container=f"c{number}", exit_code=None)
    assert ledger.live_execution(task) == (3, "c3", "h1")
    ledger.execution(task, 1, 3, state="ended", container="c3", exit_code=0)
    assert ledger.live_execution(task) == (2, "c2", "h1")


def test_what_stands_on_a_host_that_fell_silent_is_given_up_when_another_begins_anew(hands: Hands) -> None:
    run, claim = hands.verifying()
    store, task = hands.store, claim.task.id
    store.ledger.execution(
        task, 1, store.ledger.next_execution(task, 1), state="running", container="c1", exit_code=None
    )
    assert store.ledger.standing_elsewhere(task, host="h1") == ()
    hands.interrupt(claim)
    hands.make_due()
    second = hands.take("w2", host="h2")
    assert store.ledger.live_execution(task) == (1, "c1", "h1")
    assert store.ledger.standing_elsewhere(task, host="h2") == (1,)
    assert store.workers.abandoned(host="h1") == []
    store.ledger.execution(
        task, 2, store.ledger.next_execution(task, 2), state="running", container="c2", exit_code=None
    )
    assert store.ledger.live_execution(task) == (2, "c2", "h2")
    assert store.workers.abandoned(host="h1") == [(task, 1, "c1")]
    assert store.workers.abandoned(host="h2") == []
    hands.interrupt(second)
    hands.make_due()
    # Whoever is nearest goes on with what stands: the first host has nothing to go on with any more.
    assert store.ledger.standing_elsewhere(task, host="h1") == (2,)
    store.workers.removed(task, 2)
    assert store.ledger.live_execution(task) == (2, "c2", "h2")
    store.workers.removed(task, 1)
    assert store.workers.abandoned(host="h1") == []
    assert store.ledger.standing_elsewhere(task, host="h2") == ()
    assert run == claim.task.run


def test_a_resume_point_is_given_to_the_next_attempt(hands: Hands) -> None:
    _, claim = hands.verifying(["all"])
    hands.store.ledger.token(claim.task.id, 1, "row 7")
    hands.store.ledger.resume_point(claim.task.id, 1, "row 7", OUTPUT)
    hands.interrupt(claim)
    hands.make_due()
    again = hands.take()
    assert (again.resume_from, again.resume_output) == ("row 7", OUTPUT)


# ---- what a viewer is told ----


def test_how_far_runs_have_come_is_asked_for_all_at_once(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b"], batches=2)
    other = hands.take()
    quiet = hands.submit()
    inside = hands.store.inside
    before = inside.pulses([run, quiet, 4711])
    assert sorted(before) == sorted([run, quiet])
    assert before[run].logs == {task.id: task.log_size for task in inside.tasks(run)}
    assert before[run].event == hands.events(run)[-1].id

    def changed() -> bool:
        """Tell whether the run has moved on since the last look, and the other one has not."""
        nonlocal before
        seen, before = before, inside.pulses([run, quiet])
        assert before[quiet] == seen[quiet]
        return before[run] != seen[run]

    assert not changed()
    hands.log(claim, b"one\n")
    assert changed()
    assert before[run].logs[claim.task.id] == 4
    for seconds in (None, 2.5):
        state = "running" if seconds is None else "done"
        hands.store.ledger.step(claim.task.id, 1, "run", state=state, seconds=seconds, detail="")
        assert changed()
    hands.mark(claim, "a")
    assert changed()
    hands.end(claim)
    assert changed()
    hands.log(other, b"other\n")
    assert changed()
    hands.store.runs.cancel(run, "mio")
    assert changed()
    assert not changed()


def test_an_attempts_work_is_read_from_marks_events_and_containers(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"])
    task, ledger = claim.task.id, hands.store.ledger
    ledger.execution(task, 1, 1, state="running", container="c1", exit_code=None)
    hands.mark(claim, "a", "b")
    ledger.execution(task, 1, 1, state="ended", container="c1", exit_code=None)
    hands.store.tasks.interrupt(task, 1, Reason("database_lost", "The connection dropped."))
    hands.store.runs.resume(run, "mio")
    again = hands.take()
    ledger.execution(task, 2, 2, state="running", container="c2", exit_code=None)
    ledger.void(task, 2, "b", "its bytes changed")
    hands.mark(again, "c")
    found = {(one.task, one.attempt): work for one, work in hands.store.inside.works(run)}
    assert found[task, 1] == Work(kept=0, finished=1, void=0, adopted=False, begun_again=False)
    assert found[task, 2] == Work(kept=1, finished=1, void=1, adopted=False, begun_again=True)
    assert hands.store.inside.runs_of([task, 4711]) == {task: run}


def test_an_attempts_work_tells_which_units_failed(hands: Hands) -> None:
    run, claim = hands.verifying(["a", "b", "c"])
    hands.mark(claim, "a", "b")
    hands.mark(claim, "c", failed=True)
    [(_, work)] = [(one, work) for one, work in hands.store.inside.works(run) if one.task == claim.task.id]
    assert (work.finished, work.failed) == (3, 1)


def test_a_log_is_read_in_pieces_of_any_size(hands: Hands, tmp_path: Path) -> None:
    site = service(hands, tmp_path)
    _, claim = hands.verifying(["a", "b"])
    for piece in (b"one\n", b"two\n" * 20, b"3\n" * 500):
        hands.log(claim, piece)
    whole = b"one\n" + b"two\n" * 20 + b"3\n" * 500
    for block in (1, 7, 64, 100_000):
        pieces = list(site.open_log(claim.task.id, block=block))
        assert b"".join(pieces) == whole
        assert max(map(len, pieces)) <= block
        assert b"".join(site.open_log(claim.task.id, offset=3, end=90, block=block)) == whole[3:90]
        assert list(site.open_log(claim.task.id, offset=len(whole), block=block)) == []


def test_the_pulse_changes_when_a_record_does_and_else_not(hands: Hands) -> None:
    pulse = hands.store.database.pulse
    first = pulse()
    assert pulse() == first
    hands.submit()
    second = pulse()
    assert second != first
    hands.run(1) if hands.store.database.is_sqlite else None
    assert pulse() == second


def test_queue_counts_and_workers(hands: Hands) -> None:
    hands.worker("w1")
    hands.worker("w2", pool="large")
    hands.submit()
    hands.submit(pool="large")
    hands.take("w1")
    hands.submit()
    assert hands.store.inside.queue() == {"local": {"running": 1, "queued": 1}, "large": {"queued": 1}}
    hands.store.workers.seen("w2", draining=True)
    one, two = hands.store.workers.workers()
    assert (one.task is not None, two.draining, two.pool) == (True, True, "large")
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE workers SET seen_at = seen_at - 100 WHERE name = 'w2'"))
    assert [worker.name for worker in hands.store.workers.workers()] == ["w1"]
    hands.store.workers.unregister("w1")
    assert hands.store.workers.workers() == []
    assert hands.store.problems() == []
