"""What the doctor says of the processes without which runs stand still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs.adapters.sql_look import signs
from jobs.adapters.sql_store import Store
from jobs.doctor import Level
from jobs.doctor_processes import judge_processes
from jobs.heartbeats import COMPARER, SWEEPER, Signs

NOW = datetime(2026, 11, 22, 14, 2, tzinfo=UTC)


def test_both_are_there() -> None:
    seen = {SWEEPER: NOW - timedelta(seconds=4), COMPARER: NOW}
    found = judge_processes(Signs(NOW, seen))
    assert [(one.what, one.level, one.text) for one in found] == [
        ("sweeper", Level.OK, "heard of 4 s ago"),
        ("comparer", Level.OK, "heard of 0 s ago"),
    ]


def test_one_that_is_silent_and_one_that_never_was_there_are_warnings_with_a_remedy() -> None:
    silent, never = judge_processes(Signs(NOW, {SWEEPER: NOW - timedelta(minutes=3)}))
    assert silent.level is never.level is Level.WARNING
    assert silent.text.startswith("was last heard of at 2026-11-22 13:59:00 UTC: while it is away, nothing that was")
    assert never.text == "was never heard of: while it is away, no compare run comes to its end"
    assert "seatrial sweeper" in silent.remedy
    assert "seatrial comparer" in never.remedy


def test_an_installation_that_never_ran_is_not_blamed() -> None:
    assert judge_processes(None) == judge_processes(Signs(NOW)) == []


def test_the_look_makes_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    url = f"sqlite:///{file}"
    assert signs(url) is None
    assert not file.exists()
    assert signs("none of a database") is None
    file.touch()
    assert signs(url) is None, "no tables yet"
    store = Store.open(url)
    store.heartbeats.beat(SWEEPER)
    store.close()
    found = signs(url)
    assert found is not None
    assert not found.is_silent(SWEEPER)
    file.write_text("no database at all, but a text that somebody put there")
    assert signs(url) is None
