"""The store under many hands at once, and how its tables come to be. SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fixtures_store import older_store
from hands import WORLD, Hands
from sqlalchemy import inspect, select, text

from jobs.adapters import sql_plan
from jobs.adapters.sql_look import known_revisions
from jobs.adapters.sql_schema import metadata, runs
from jobs.adapters.sql_store import MIGRATIONS, Store
from jobs.run import RunFilter, RunState, Verdict
from runner.errors import Conflict, Fenced, StoreUnavailable
from runner.model import UnitState


def at_once(number: int, action: Callable[[int], object]) -> list[object]:
    """Do it in so many threads that begin at the same moment; give what each returned or raised."""
    gate = threading.Barrier(number)

    def one(index: int) -> object:
        gate.wait()
        try:
            return action(index)
        except (Fenced, StoreUnavailable) as error:
            return error

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


# ---- nothing is lost and nothing is done twice ----


def test_twenty_writers_lose_no_update(shared_hands: Hands) -> None:
    names = [f"u{number:04}" for number in range(1_000)]
    run, claim = shared_hands.verifying(names)

    def write(index: int) -> None:
        for name in names[index::20]:
            shared_hands.mark(claim, name)

    assert set(at_once(20, write)) == {None}
    found = shared_hands.run(run)
    assert (found.units.done, shared_hands.tasks(run)[1].units_done) == (1_000, 1_000)
    assert len(shared_hands.done(run)) == 1_000


def test_log_writers_leave_no_gap(shared_hands: Hands) -> None:
    run, claim = shared_hands.verifying()
    at_once(10, lambda index: [shared_hands.log(claim, b"%02d %04d\n" % (index, n)) for n in range(50)])
    chunks = shared_hands.store.inside.log_chunks(claim.task.id, 0, 1 << 20)
    chunks += shared_hands.store.inside.log_chunks(claim.task.id, chunks[-1].offset + 8, 1 << 20)
    assert [chunk.offset for chunk in chunks] == [8 * n for n in range(500)]
    assert Counter(bytes(chunk.data or b"")[:2] for chunk in chunks) == {b"%02d" % n: 50 for n in range(10)}
    assert shared_hands.tasks(run)[1].log_size == 4_000


def test_each_task_is_claimed_once(shared_hands: Hands) -> None:
    for _ in range(40):
        shared_hands.submit()

    def work(index: int) -> list[int]:
        mine = []
        while (claim := shared_hands.claim(f"w{index}")) is not None:
            mine.append(claim.task.id)
        return mine

    claimed = [task for tasks in at_once(8, work) for task in tasks]  # type: ignore[attr-defined]
    assert len(claimed) == len(set(claimed)) == 40


@pytest.mark.parametrize("repetition", range(5))
def test_batches_that_end_at_once_end_their_run(shared_hands: Hands, repetition: int) -> None:
    run, first = shared_hands.verifying([f"u{n}" for n in range(8)], batches=8)
    claims = [first] + [shared_hands.take(f"w{n}") for n in range(7)]

    def end(index: int) -> object:
        shared_hands.mark(claims[index], *claims[index].units)
        return shared_hands.end(claims[index])

    at_once(8, end)
    found = shared_hands.run(run)
    assert (found.state, found.verdict, found.units.done) == (RunState.DONE, Verdict.PASSED, 8)


def test_who_follows_the_events_misses_none(shared_hands: Hands) -> None:
    """Numbers are given before a commit: an event must not become visible after one with a higher number."""
    run, first = shared_hands.verifying([f"u{n}" for n in range(8)], batches=8)
    claims = [first] + [shared_hands.take(f"w{n}") for n in range(7)]
    seen: list[int] = []
    over = threading.Event()

    def follow() -> None:
        while True:
            last_look = over.is_set()
            found = shared_hands.store.inside.events(run, after=seen[-1] if seen else 0, limit=500)
            seen.extend(event.id for event in found)
            if last_look:
                return

    follower = threading.Thread(target=follow)
    follower.start()

    def work(index: int) -> None:
        task = claims[index].task
        for number in range(30):
            shared_hands.store.ledger.token(task.id, task.attempt, f"{number}")

    at_once(8, work)
    over.set()
    follower.join()
    assert seen == [event.id for event in shared_hands.events(run)]
    assert len(shared_hands.events(run, "token")) == 240


@pytest.mark.parametrize("repetition", range(5))
def test_cancel_claim_interrupt_and_due_at_once_end_in_cancelled(shared_hands: Hands, repetition: int) -> None:
    run, claim = shared_hands.verifying([f"u{n}" for n in range(6)], batches=6)
    shared_hands.interrupt(shared_hands.take("w1"))
    with shared_hands.store.database.write() as connection:
        connection.execute(text("UPDATE tasks SET due_at = 0 WHERE state = 'interrupted'"))
    at_once(
        6,
        lambda index: [
            lambda: shared_hands.store.runs.cancel(run, "mio"),
            lambda: shared_hands.claim("w2"),
            lambda: shared_hands.claim("w3"),
            lambda: shared_hands.interrupt(claim),
            shared_hands.store.tasks.requeue_due,
            shared_hands.store.tasks.requeue_due,
        ][index](),
    )
    for task in shared_hands.tasks(run):
        if task.state.value == "running":
            assert shared_hands.store.tasks.renew(task.id, task.attempt, 60.0) is True
            shared_hands.store.tasks.interrupt(task.id, task.attempt, WORLD)
    assert shared_hands.claim("w4") is None
    shared_hands.make_due()
    assert shared_hands.claim("w4") is None
    assert shared_hands.run(run).state is RunState.CANCELLED


def test_two_who_resume_at_once_prepare_once(shared_hands: Hands) -> None:
    run, claim = shared_hands.verifying(["a", "b"])
    shared_hands.end(claim)
    shared_hands.clean(run)

    def resume(_index: int) -> object:
        try:
            return shared_hands.store.runs.resume(run, "mio").id
        except Conflict as error:
            return error.code

    assert sorted(map(str, at_once(4, resume))) == [str(run), "conflict", "conflict", "conflict"]
    assert [task.kind.value for task in shared_hands.tasks(run)] == ["prepare", "prepare", "verify"]


def test_a_resume_and_a_clean_up_at_once_never_drop_what_is_used(shared_hands: Hands) -> None:
    for _ in range(8):
        run, claim = shared_hands.preparing()
        shared_hands.prepared(claim, ["a"], batches=1, data="d")
        shared_hands.end(shared_hands.take())
        began: list[str | None] = []
        at_once(
            2,
            lambda index, run=run, began=began: (  # type: ignore[misc]
                shared_hands.store.runs.resume(run, "mio")
                if index
                else began.append(shared_hands.store.runs.begin_cleaning(run))
            ),
        )
        if began[0] is not None:
            assert shared_hands.store.runs.cleaned(run, began[0])
            assert shared_hands.take().task.kind.value == "prepare"
        else:
            assert shared_hands.take().template is not None
        assert shared_hands.store.runs.to_clean() == []
        shared_hands.store.runs.cancel(run, "mio")


def test_a_long_list_leaves_the_others_their_turn(shared_hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_plan, "PIECE", 500)
    _, claim = shared_hands.preparing()
    shared_hands.submit()
    other = shared_hands.take("w2")
    stop = threading.Event()
    renewed: list[int] = []

    def renew() -> None:
        while not stop.wait(0.01):
            shared_hands.store.tasks.renew(other.task.id, 1, 60.0)
            renewed.append(1)

    thread = threading.Thread(target=renew)
    thread.start()
    shared_hands.prepared(claim, [f"u{n:05}" for n in range(20_000)], batches=4)
    stop.set()
    thread.join()
    assert len(renewed) > 10  # of some forty; written in one piece it would be before and after it, three or four
    assert len(shared_hands.units(claim.task.run, state=UnitState.TODO)) == 20_000


# ---- how the tables come to be ----


def test_migrations_make_what_the_tables_say(empty_url: str) -> None:
    store = Store.open(empty_url)
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == known_revisions()[-1]
        for table in metadata.tables.values():
            found = inspect(connection).get_pk_constraint(table.name)
            assert found["constrained_columns"] == [column.name for column in table.primary_key]
    if store.database.is_sqlite:
        with store.database.read() as connection:
            made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name IN ('runs', 'tasks', 'events')"))
            assert all("AUTOINCREMENT" in sql for (sql,) in made)
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    store.close()


def test_the_journal_is_written_back_beside_readers_and_writers(empty_url: str) -> None:
    store = Store.open(empty_url)
    with store.database.read() as reader:
        reader.execute(select(runs.c.id)).all()
        store.mark("a1b2c3")
        store.database.write_back()
        assert reader.execute(select(runs.c.id)).all() == []
    store.database.write_back()
    if store.database.is_sqlite:
        path = Path(empty_url.removeprefix("sqlite:///"))
        alone = path.with_name("alone.db")
        alone.write_bytes(path.read_bytes())  # without its journal
        found = Store.open(f"sqlite:///{alone}")
        assert found.mark("other") == "a1b2c3"
        found.close()
    store.close()


def test_all_hosts_have_the_mark_of_the_first(empty_url: str) -> None:
    first, second = Store.open(empty_url), Store.open(empty_url)
    with ThreadPoolExecutor(8) as pool:
        marks = set(pool.map(lambda n: (first, second)[n % 2].mark(f"{n:06x}"), range(16)))
    assert len(marks) == 1
    assert {first.mark("other"), second.mark("more")} == marks
    first.close()
    second.close()


def test_an_older_store_keeps_its_records(empty_url: str) -> None:
    with older_store(empty_url, "0001") as connection:
        connection.execute(
            text(
                'INSERT INTO runs (project, ref, "commit", "user", note, priority, pool, options, state, created_at,'
                " search, units_done, units_failed, attempts, cancel_requested) VALUES"
                " ('p', 'main', 'c', 'mio', '', 0, 'local', '{}', 'done', 1, 'main', 0, 0, 0, false)"
            )
        )
    store = Store.open(empty_url)
    assert [run.project for run in store.runs.page(RunFilter(), before=None, after=None, limit=5).runs] == ["p"]
    store.close()


OPEN = """
import sys
from jobs.adapters.sql_store import Store
store = Store.open(sys.argv[1])
store.workers.register(name=sys.argv[2], host="h", pool="local", pid=1)
print(len(store.problems()))
"""


def test_a_migrations_file_is_named_for_its_revision() -> None:
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    assert tuple(path.name.partition("_")[0] for path in files) == known_revisions()


def test_a_store_that_is_up_to_date_is_opened_without_alembic(empty_url: str) -> None:
    Store.open(empty_url).close()
    look = "import sys; print('alembic' in sys.modules)"
    again = subprocess.run([sys.executable, "-c", f"{OPEN}{look}", empty_url, "w"], capture_output=True, text=True)
    assert (again.stdout.split(), again.stderr) == (["0", "False"], "")


# Forks of one that has imported all: they begin at the same moment, and the imports are no part of this.
EIGHT = """
import multiprocessing, os, sys
import alembic.command
from jobs.adapters.sql_store import Store

fork = multiprocessing.get_context("fork")
gate = fork.Barrier(8)

def child(name):
    gate.wait(60)
    store = Store.open(sys.argv[1])
    store.workers.register(name=name, host="h", pool="local", pid=1)
    os.write(1, b"%d\\n" % len(store.problems()))  # at once: the others write too

children = [fork.Process(target=child, args=(f"w{n}",)) for n in range(8)]
for one in children:
    one.start()
for one in children:
    one.join()
"""


def test_eight_processes_may_open_a_new_store_at_once(empty_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, empty_url], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout.split(), done.stderr) == (["0"] * 8, "")
    store = Store.open(empty_url)
    assert len(store.workers.workers()) == 8
    store.close()


# ---- what a store that is away looks like ----


def test_a_server_that_is_not_there_is_said_to_be_away(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        Store.open("postgresql://nobody@127.0.0.1:1/none")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StoreUnavailable, match="unable to open"):
        Store.open(f"sqlite:///{folder}")


def test_a_statement_that_is_wrong_is_no_outage(shared_hands: Hands) -> None:
    with pytest.raises(Exception, match=r"(?i)no such column|does not exist") as raised:  # noqa: SIM117
        with shared_hands.store.database.read() as connection:
            connection.execute(text("SELECT no_column FROM runs"))
    assert not isinstance(raised.value, StoreUnavailable)
    shared_hands.submit()


def test_a_store_that_cannot_be_read_is_a_problem_in_words(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.db")
    assert store.problems() == []
    with store.database.write() as connection:
        connection.execute(text("DROP TABLE runs"))
    assert "no such table" in store.problems()[0]
    store.close()
