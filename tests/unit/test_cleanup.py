"""What the sweeper takes away on a host: all that carries our mark and nobody wants any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import pytest
from hands import SPEC, Hands
from sqlalchemy import text

from jobs.adapters.sql_store import Store
from jobs.cleanup import Cleanup
from jobs.keeping import Done
from runner.adapters.engine_memory import MemoryEngine
from runner.adapters.postgres_memory import MemoryDatabases, MemoryServer
from runner.door import GatewayDoor
from runner.errors import DatabaseUnavailable
from runner.model import Container
from runner.passing import passing_directory

GATEWAY = "seatrial/gateway:1"


class Host:
    """A host with a door and executions of its own; each execution is a container, a door and two directories."""

    def __init__(self, root: Path) -> None:
        self.hands = Hands(Store.in_memory())
        self.engine = MemoryEngine(images={GATEWAY: "sha256:1"})
        self.doors, self.executions = root / "doors", root / "executions"
        door = GatewayDoor(self.engine, self.doors, labels={"installation": "i"})
        self.server = MemoryServer()
        self.dsn_error: Exception | None = None
        self.source = MemoryDatabases("books", server=self.server, owner="app", installation="i")
        self.cleanup = Cleanup(
            self.hands.store,
            self.engine,
            door,
            {"books": self.open_source},
            self.executions,
            passing=(root / "spool", root / "incoming"),
            installation="i",
            host="h1",
        )

    def open_source(self) -> MemoryDatabases:
        if self.dsn_error is not None:
            raise self.dsn_error
        return self.source

    def submit(self, more: str = "database: {source: books}\n") -> int:
        """Accept a run that has a database."""
        new = self.hands.new()
        leg = replace(new.legs[0], spec_text=f"{SPEC}{more}")
        return self.hands.store.runs.add(replace(new, legs=(leg,)), key=None, body="")[0].id

    def door(self, execution: str) -> None:
        """Stand up what is left of a door: its two containers and its directory."""
        for part in ("door", "relay"):
            labels = {"installation": "i", "door": execution, "part": part}
            self.engine.create(Container(f"{execution}-{part}", GATEWAY, ("sleep",), labels))
        (self.doors / execution).mkdir(parents=True)

    def orphans(self) -> list[str]:
        return [done.name for done in self.cleanup.orphans()]

    def left(self) -> list[str]:
        return sorted([each.name for each in self.engine.find()] + [path.name for path in self.doors.glob("*")])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_door_that_lost_its_execution_is_swept(host: Host) -> None:
    run, claim = host.hands.preparing()
    mine, other = f"seatrial-i-r{run}-t{claim.task.id}-e1", "seatrial-i-r999-t999-e1"
    host.door(mine)
    host.door(other)
    assert host.orphans() == [other]
    assert host.left() == sorted([mine, f"{mine}-door", f"{mine}-relay"])


def test_what_a_dead_writer_left_goes_and_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "half").write_text("h")
    with passing_directory(tmp_path / "spool") as copies:
        assert list(host.cleanup.orphans()) == [Done("file", "incoming/half", "whoever wrote it died")]
        assert copies.is_dir()
    assert not (tmp_path / "incoming" / "half").exists()


def test_a_run_takes_its_doors_along(host: Host) -> None:
    run, _ = host.hands.preparing()
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.door(f"seatrial-i-r{run}0-t1-e1")
    assert list(host.cleanup.run(run, lambda: True)) == [f"seatrial-i-r{run}-t1-e1"]
    assert {name.split("-")[2] for name in host.left()} == {f"r{run}0"}


def test_a_clean_up_asks_before_each_removal_and_takes_nothing_that_was_made_since(host: Host) -> None:
    run = host.submit()
    base = host.source.bless().database
    leg, execution = f"seatrial_leg_i_r{run}_candidate", f"seatrial_x_i_r{run}_t1_e1"
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.source.clone(base, execution)
    asked: list[int] = []

    def still() -> bool:
        asked.append(1)
        if len(asked) == 1:
            host.source.clone(base, leg)
        return True

    assert list(host.cleanup.run(run, still)) == [f"seatrial-i-r{run}-t1-e1", execution]
    assert len(asked) == 2
    assert host.source.made_for(run) == [leg]


def test_a_clean_up_that_is_overtaken_leaves_the_rest(host: Host) -> None:
    run = host.submit()
    clone = f"seatrial_leg_i_r{run}_candidate"
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.source.clone(host.source.bless().database, clone)
    answers = iter([True, False])
    assert list(host.cleanup.run(run, lambda: next(answers))) == [f"seatrial-i-r{run}-t1-e1"]
    assert host.source.made_for(run) == [clone]


def test_a_clean_up_that_was_paused_before_a_drop_leaves_what_was_made_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = host.submit()
    clone = f"seatrial_leg_i_r{run}_candidate"
    base = host.source.bless().database
    host.hands.prepared(host.hands.take(), ["a"], batches=1)
    host.source.clone(base, clone)
    host.hands.store.runs.cancel(run, "mio")
    token = host.hands.store.runs.begin_cleaning(run)
    assert token is not None
    drop = host.source.drop

    def paused(*names: str, **more: Any) -> None:
        with host.hands.store.database.write() as connection:  # for longer than others wait for its last word
            connection.execute(text("UPDATE runs SET cleaning_until = 0"))
        host.hands.store.runs.resume(run, "mio")
        host.source.clone(base, clone)
        drop(*names, **more)

    monkeypatch.setattr(host.source, "drop", paused)
    assert list(host.cleanup.run(run, lambda: host.hands.store.runs.still_cleaning(run, token))) == []
    assert host.source.made_for(run) == [clone]


def test_a_source_that_is_away_keeps_no_container(host: Host) -> None:
    run = host.submit()
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.server.stop()
    removing = host.cleanup.run(run, lambda: True)
    assert next(removing) == f"seatrial-i-r{run}-t1-e1"
    with pytest.raises(DatabaseUnavailable):
        next(removing)
    assert host.left() == []


def test_a_run_whose_specification_is_valid_no_more_is_cleaned_up(host: Host) -> None:
    run = host.submit("no_such_key: 1\n")
    clone = f"seatrial_leg_i_r{run}_candidate"
    host.source.clone(host.source.bless().database, clone)
    assert list(host.cleanup.run(run, lambda: True)) == [clone]
    assert host.source.made_for(run) == []


@pytest.mark.parametrize("error", [FileNotFoundError("dsn"), KeyError("DSN"), ValueError("dsn")])
def test_a_dsn_that_cannot_be_read_keeps_no_container(host: Host, error: Exception) -> None:
    host.dsn_error = error
    run = host.submit()
    host.door(f"seatrial-i-r{run}-t1-e1")
    host.door("seatrial-i-r999-t999-e1")
    assert host.orphans() == ["seatrial-i-r999-t999-e1"]
    removing = host.cleanup.run(run, lambda: True)
    assert next(removing) == f"seatrial-i-r{run}-t1-e1"
    with pytest.raises(DatabaseUnavailable, match="The dsn of the source books cannot be read"):
        next(removing)


def test_what_cannot_be_removed_keeps_nothing_else(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, tried = host.engine.remove, []

    def stuck(name: str) -> None:
        if name == "seatrial-i-r1-t91-e1":
            tried.append(name)
            raise TimeoutExpired("rm", 600)
        remove(name)

    monkeypatch.setattr(host.engine, "remove", stuck)
    for number in (91, 92):
        host.door(f"seatrial-i-r1-t{number}-e1")
    assert host.orphans() == ["seatrial-i-r1-t92-e1"]
    assert host.orphans() == []
    assert tried == ["seatrial-i-r1-t91-e1"], "it is left alone for a while"


def test_what_is_removed_says_what_it_was_and_why(host: Host) -> None:
    name = "seatrial-i-r8-t91-e1"
    clone = "seatrial_leg_i_r9_baseline_again"
    host.door(name)
    host.source.clone(host.source.bless().database, clone)
    over = Done("execution", name, "its task is over", 8, 91)
    unwanted = Done("database", clone, "nothing that lives refers to it; it was on the source books", 9)
    assert list(host.cleanup.orphans()) == [over, unwanted]


def test_what_stands_of_a_task_that_was_given_up_goes(host: Host) -> None:
    run, claim = host.hands.preparing()
    name = f"seatrial-i-r{run}-t{claim.task.id}-e1"
    ledger = host.hands.store.ledger
    number = ledger.next_execution(claim.task.id, claim.task.attempt)
    ledger.execution(claim.task.id, claim.task.attempt, number, state="running", container=name, exit_code=None)
    ledger.next_execution(claim.task.id, claim.task.attempt)
    host.door(name)
    with host.hands.store.database.write() as connection:
        connection.execute(text("UPDATE executions SET state = 'abandoned'"))
    why = "it was given up: nobody goes on with it"
    assert list(host.cleanup.orphans()) == [Done("execution", name, why, run, claim.task.id)]
    assert list(host.cleanup.orphans()) == []


def test_a_directory_that_stays_is_not_told_to_be_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.executions / "seatrial-i-r8-t91-e1").mkdir(parents=True)
    monkeypatch.setattr("runner.workspace.remove_tree", lambda _: None)
    assert host.orphans() == []
