"""What the store tells of all that the sweeper does."""

from __future__ import annotations

import pytest
from hands import Hands
from sqlalchemy import text

from jobs.adapters import sql_keeping
from jobs.keeping import Done
from runner.model import Reason


def test_a_clean_up_tells_what_it_removed(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    names = [f"c{number}" for number in range(60)]
    assert hands.store.runs.cleaned(run, hands.cleaning(run), removed=names)
    [event] = hands.events(run, "cleaned")
    assert event.data == {"why": "the run is over", "count": 60, "removed": names[:50]}


def test_a_clean_up_that_is_tried_again_and_again_is_told_once(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    hands.store.runs.cleaned(run, hands.cleaning(run), all_of_it=False, removed=["c1"])
    for _ in range(3):
        hands.store.runs.cleaned(run, hands.cleaning(run), all_of_it=False)
    hands.clean(run)
    assert [event.data["removed"] for event in hands.events(run, "cleaned")] == [["c1"], []]


def test_what_was_removed_by_one_that_was_overtaken_is_told_too(hands: Hands) -> None:
    run = hands.submit()
    hands.store.runs.cancel(run, "mio")
    slow = hands.cleaning(run)
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE runs SET cleaning_until = 0"))
    hands.clean(run)
    assert hands.store.runs.cleaned(run, slow, removed=["c1"]) is False
    assert [event.data["removed"] for event in hands.events(run, "cleaned")] == [[], ["c1"]]


def test_what_is_due_tells_how_long_its_pause_was(hands: Hands) -> None:
    run, claim = hands.preparing()
    hands.interrupt(claim, Reason("database_lost", "The link dropped."))
    with hands.store.database.write() as connection:
        connection.execute(text("UPDATE attempts SET ended_at = ended_at - 100"))
        connection.execute(text("UPDATE tasks SET due_at = (SELECT max(ended_at) + 4 FROM attempts)"))
    assert hands.store.tasks.requeue_due() == [claim.task.id]
    assert hands.events(run, "task")[-1].data["text"] == "Its pause of 4 s is over."


def test_a_ring_that_is_repeated_is_told_once_each_time_that_its_task_is_queued(hands: Hands) -> None:
    def ring() -> list[tuple[int, str]]:
        with hands.store.database.write() as connection:
            connection.execute(text("UPDATE tasks SET rung_at = rung_at - 60"))
        return hands.store.tasks.to_ring(every=5.0)

    run = hands.submit()
    hands.worker()
    [task] = hands.tasks(run)
    assert hands.store.tasks.to_ring(every=5.0) == [(task.id, "local")]
    assert hands.events(run, "ring") == []
    for _ in range(3):
        assert ring() == [(task.id, "local")]
    [event] = hands.events(run, "ring")
    assert event.task == task.id
    assert event.data["text"] == "No slot has taken it: it is rung for again, every 5 s until one does."
    hands.interrupt(hands.take())
    hands.worker()
    hands.make_due()
    assert [ring(), ring(), ring()] == [[(task.id, "local")]] * 3
    assert len(hands.events(run, "ring")) == 2


def test_what_was_of_no_run_or_of_one_that_is_gone_is_listed(hands: Hands) -> None:
    run = hands.submit()
    tree, unknown = Done("tree", "p/1", "not used for 40d"), Done("database", "d", "nobody's", run + 999)
    for done in (tree, Done("execution", "c", "its task is over", run, 7), unknown):
        hands.store.keeping.note("h1", done)
    notes = hands.store.keeping.notes()
    assert [(note.host, note.done.what, note.done.name, note.done.why) for note in notes] == [
        ("h1", "tree", "p/1", "not used for 40d"),
        ("h1", "database", "d", "nobody's"),
    ]
    [event] = hands.events(run, "removed")
    assert event.task == 7
    assert event.data == {"what": "execution", "name": "c", "why": "its task is over", "host": "h1"}


def test_only_the_newest_are_kept(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_keeping, "NOTES", 3)
    for number in range(5):
        hands.store.keeping.note("h1", Done("tree", f"p/{number}", "not used for 40d"))
    assert [note.done.name for note in hands.store.keeping.notes()] == ["p/2", "p/3", "p/4"]
    assert [note.done.name for note in hands.store.keeping.notes(limit=2)] == ["p/3", "p/4"]
