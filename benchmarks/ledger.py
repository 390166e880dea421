"""100,000 checkpoint marks, durable, against a file that is appended to and synced for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, pairs, ratio_row
from jobs.adapters.sql_store import Store
from jobs.new_run import NewLeg, NewRun
from jobs.run import TaskState
from runner.model import Output, Prepared, UnitResult, UnitState

MARKS = 100_000
BATCH = 1_000


def new_run(*, note: str = "") -> NewRun:
    """Make a submission without anything behind it."""
    leg = NewLeg("candidate", "main", "a" * 40, "Subject", "Author", "seatrial.yml", "version: 1", "0" * 64)
    return NewRun("bench", "local", "bench", note, 0, None, None, {}, (leg,))


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    store = Store.open(f"sqlite:///{root}/ledger.db")
    names = tuple(f"tenant_{number:06}/report" for number in range(MARKS))

    def marks() -> None:
        run, _ = store.runs.add(new_run(), key=None, body="")
        claim = store.tasks.claim(pool="local", host="h", worker="w", lease=600)
        assert claim is not None
        store.plan.prepared(claim.task.id, 1, Prepared("i", "d", names), lambda units: [tuple(units)])
        claim = store.tasks.claim(pool="local", host="h", worker="w", lease=600)
        assert claim is not None
        assert claim.task.run == run.id
        for start in range(0, MARKS, BATCH):
            some = names[start : start + BATCH]
            results = [UnitResult(name, UnitState.DONE, Output("x.csv", "b" * 64, 3), seconds=0.1) for name in some]
            store.ledger.mark(claim.task.id, 1, results, None)
        store.tasks.end(claim.task.id, 1, TaskState.DONE, None)

    def appended() -> None:
        with (root / "marks").open("wb") as file:
            for name in names:
                file.write(name.encode() + b"\n")
                file.flush()
                os.fdatasync(file.fileno())

    yield ratio_row(
        "100,000 checkpoint marks, durable (with the plan that lists them)",
        "append + fdatasync each",
        pairs(appended, marks, rounds=3, warm=0),
        0.25,
    )
