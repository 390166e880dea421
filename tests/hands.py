"""Hands to move runs in a store: people's, a worker's, a sweeper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.comparing import Compared
from jobs.new_run import NewLeg, NewRun
from jobs.overview import EVERY_UNIT
from jobs.run import Event, Run, Task, TaskState, Unit
from runner.model import Output, Prepared, Reason, TaskKind, Template, UnitResult, UnitState

OUTPUT = Output("x.csv", "ab" * 32, 12)
SPEC = "version: 1\nworkspace: {image: debian}\nunits: bin/list\nrun: bin/export\n"
WORLD = Reason("database_lost", "The link dropped.")


class Hands:
    """Do to a store what people, workers and sweepers do, with as few words as a test can bear."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # ---- people ----

    def new(self, user: str = "mio", *, priority: int = 0, pool: str = "local", **more: Any) -> NewRun:
        leg = NewLeg(
            more.pop("name", "candidate"),
            more.pop("ref", "main"),
            "c" * 40,
            "subject",
            "author",
            "f",
            SPEC,
            "d",
            more.pop("source", None),
        )
        return NewRun(
            project=more.pop("project", "accounts"),
            pool=pool,
            user=user,
            note=more.pop("note", ""),
            priority=priority,
            units_filter=more.pop("units_filter", None),
            database=None,
            options={},
            legs=(leg, *more.pop("legs", ())),
        )

    def submit(self, user: str = "mio", **more: Any) -> int:
        return self.store.runs.add(self.new(user, **more), key=None, body="")[0].id

    def run(self, run: int) -> Run:
        return self.store.runs.get(run)

    def tasks(self, run: int) -> list[Task]:
        return self.store.inside.tasks(run)

    def units(self, run: int, **more: Any) -> list[Unit]:
        wanted = {"leg": None, "state": None, "text": None, "task": None, "after": None, "limit": 1_000_000} | more
        return self.store.inside.units(run, **wanted)

    def done(self, run: int) -> set[str]:
        return {unit.unit for unit in self.units(run, state=UnitState.DONE)}

    def events(self, run: int, kind: str | None = None) -> list[Event]:
        return [e for e in self.store.inside.events(run, after=0, limit=10_000) if kind in (None, e.kind)]

    def compared(self, run: int) -> list[Compared]:
        return self.store.compare_views.by_position(run, EVERY_UNIT, after=-1, limit=10_000)

    # ---- a worker ----

    def worker(self, name: str = "w1", host: str = "h1", pool: str = "local") -> None:
        self.store.workers.register(name=name, host=host, pool=pool, pid=1)

    def claim(self, worker: str = "w1", *, host: str = "h1", pool: str = "local") -> Claim | None:
        return self.store.tasks.claim(pool=pool, host=host, worker=worker, lease=60.0)

    def take(self, worker: str = "w1", *, host: str = "h1", pool: str = "local") -> Claim:
        claim = self.claim(worker, host=host, pool=pool)
        assert claim is not None, "nothing to claim"
        return claim

    def prepared(
        self,
        claim: Claim,
        units: Sequence[str] = ("a", "b", "c", "d"),
        *,
        batches: int = 2,
        image: str = "sha256:1",
        data: str | None = None,
        snapshot: str = "",
    ) -> None:
        def divide(names: Sequence[str]) -> list[tuple[str, ...]]:
            size = max(1, -(-len(names) // batches))
            return [tuple(names[at : at + size]) for at in range(0, len(names), size)]

        template = None if data is None else Template("verification", "leg", "app", data, snapshot)
        result = Prepared("image", image, tuple(units), template)
        self.store.plan.prepared(claim.task.id, claim.task.attempt, result, divide)

    def mark(self, claim: Claim, *units: str, failed: bool = False, source: tuple[int, int] | None = None) -> None:
        state = UnitState.FAILED if failed else UnitState.DONE
        results = [UnitResult(unit, state, None if failed else OUTPUT, "no" if failed else "", 1.5) for unit in units]
        self.store.ledger.mark(claim.task.id, claim.task.attempt, results, source)

    def mark_outputs(self, claim: Claim, outputs: Mapping[str, str | None]) -> None:
        """Finish units with an output whose digest is that letter, or failed where it is None."""
        results = [
            UnitResult(unit, UnitState.FAILED, None, "no")
            if content is None
            else UnitResult(unit, UnitState.DONE, Output("x.csv", content * 64, 3), "", 1.0)
            for unit, content in outputs.items()
        ]
        self.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)

    def log(self, claim: Claim, data: bytes, *, at: int | None = None, source: tuple[int, int] | None = None) -> int:
        return self.store.ledger.append_log(
            claim.task.id, claim.task.attempt, data, object_digest=None, source=source, at=at
        )

    def end(self, claim: Claim, state: TaskState = TaskState.DONE, reason: Reason | None = None) -> TaskState:
        return self.store.tasks.end(claim.task.id, claim.task.attempt, state, reason)

    def interrupt(self, claim: Claim, reason: Reason = WORLD, *, free: bool = False) -> TaskState:
        return self.store.tasks.interrupt(claim.task.id, claim.task.attempt, reason, free=free)

    # ---- a sweeper ----

    def make_due(self) -> list[int]:
        """Let the time pass that interrupted tasks wait, and queue them."""
        with self.store.database.write() as connection:
            connection.execute(text("UPDATE tasks SET due_at = 0 WHERE state = 'interrupted'"))
        return self.store.tasks.requeue_due()

    def clean(self, run: int) -> None:
        self.store.runs.cleaned(run, self.cleaning(run))

    def cleaning(self, run: int) -> str:
        """Begin to clean up a run; gives the token."""
        token = self.store.runs.begin_cleaning(run)
        assert token is not None
        return token

    # ---- from here to there ----

    def preparing(self, **more: Any) -> tuple[int, Claim]:
        run = self.submit(**more)
        return run, self.take()

    def verifying(self, units: Sequence[str] = ("a", "b", "c", "d"), *, batches: int = 1) -> tuple[int, Claim]:
        """Give a run whose first batch is claimed."""
        run, claim = self.preparing()
        self.prepared(claim, units, batches=batches)
        return run, self.take()

    def finish(self, run: int) -> Run:
        """Do all that is left of a run."""
        while not self.run(run).state.final:
            claim = self.take()
            if claim.task.kind is TaskKind.PREPARE:
                self.prepared(claim)
            else:
                self.mark(claim, *claim.units)
                self.end(claim)
        return self.run(run)
