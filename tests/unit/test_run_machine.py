"""Random hands on the store: whatever they do, and in whatever order, the promises about tasks and units hold."""

from __future__ import annotations

from typing import Any

from hands import OUTPUT, WORLD, Hands
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import text

from jobs.adapters.sql_schema import tasks as task_table
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.run import FINAL_TASK_STATES, RunState, TaskFacts, TaskState, derive
from runner.errors import Conflict, Fenced
from runner.model import Reason, TaskKind, UnitResult, UnitState

UNITS = ("a", "b", "c", "d", "e")
ENDS = [TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.ERRORED]


class Work(RuleBasedStateMachine):
    """Runs, workers that may be stale, people who cancel and resume, a sweeper."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands(Store.in_memory())
        self.runs: list[int] = []
        self.claims: list[Claim] = []
        self.attempts: dict[int, int] = {}
        self.done: dict[int, set[str]] = {}
        self.data = 0

    def teardown(self) -> None:
        self.hands.store.close()

    # ---- people ----

    @precondition(lambda self: len(self.runs) < 3)
    @rule(user=st.sampled_from(["mio", "rin"]), priority=st.integers(0, 1))
    def submit(self, user: str, priority: int) -> None:
        run = self.hands.submit(user, priority=priority)
        self.runs.append(run)
        self.done[run] = set()

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        was_final = self.hands.run(run).state.final
        try:
            self.hands.store.runs.cancel(run, "mio")
            assert not was_final
        except Conflict:
            assert was_final

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        state = self.hands.run(run).state
        may = state in (RunState.FAILED, RunState.ERRORED, RunState.CANCELLED, RunState.INTERRUPTED)
        try:
            assert not self.hands.store.runs.resume(run, "mio").state.final
            assert may
        except Conflict:
            assert not may

    # ---- workers: each act with any claim ever made; a stale one is refused ----

    @rule()
    def claim(self) -> None:
        waiting = [t for run in self.runs for t in self.hands.tasks(run) if t.state is TaskState.QUEUED]
        claim = self.hands.claim()
        assert (claim is not None) == bool(waiting)
        if claim is not None:
            assert claim.task.id in {task.id for task in waiting}
            assert set(claim.units).isdisjoint(self.done[claim.task.run])
            self.claims.append(claim)

    def act(self, data: st.DataObject, write: Any) -> Claim | None:
        claim = data.draw(st.sampled_from(self.claims[-6:]))
        task = self.hands.store.inside.task(claim.task.id)
        current = task.state is TaskState.RUNNING and task.attempt == claim.task.attempt
        try:
            write(claim)
        except Fenced:
            assert not current
            return None
        assert current
        return claim

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), unit=st.sampled_from(UNITS), failed=st.booleans())
    def mark(self, data: st.DataObject, unit: str, failed: bool) -> None:
        state = UnitState.FAILED if failed else UnitState.DONE
        result = UnitResult(unit, state, None if failed else OUTPUT, "")
        before: dict[str, UnitState] = {}

        def write(claim: Claim) -> None:
            before.update({u.unit: u.state for u in self.hands.units(claim.task.run, task=claim.task.id)})
            self.hands.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)

        claim = self.act(data, write)
        if claim is not None and before.get(unit) is UnitState.TODO and not failed:
            self.done[claim.task.run].add(unit)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), unit=st.sampled_from(UNITS))
    def void(self, data: st.DataObject, unit: str) -> None:
        def write(claim: Claim) -> None:
            self.hands.store.ledger.void(claim.task.id, claim.task.attempt, unit, "changed")

        claim = self.act(data, write)
        if claim is not None and unit in {u.unit for u in self.hands.units(claim.task.run, task=claim.task.id)}:
            self.done[claim.task.run].discard(unit)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.act(data, lambda claim: self.hands.store.tasks.renew(claim.task.id, claim.task.attempt, 60.0))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(ENDS))
    def end(self, data: st.DataObject, state: TaskState) -> None:
        def write(claim: Claim) -> None:
            if claim.task.kind is TaskKind.PREPARE and state is TaskState.DONE:
                self.prepare(claim)
            else:
                reason = None if state is TaskState.DONE else Reason(state.value, "…")
                self.hands.end(claim, state, reason)

        self.act(data, write)

    def prepare(self, claim: Claim) -> None:
        cancelled = self.hands.run(claim.task.run).cancel_requested
        before = len(self.hands.events(claim.task.run, "repeat"))
        self.hands.prepared(claim, UNITS, batches=2, data=f"d{self.data}")
        if len(self.hands.events(claim.task.run, "repeat")) > before:
            self.done[claim.task.run] = set()
        assert cancelled or all(unit.task is not None for unit in self.hands.units(claim.task.run))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), free=st.booleans())
    def interrupt(self, data: st.DataObject, free: bool) -> None:
        self.act(data, lambda claim: self.hands.interrupt(claim, free=free))

    # ---- the world ----

    @rule()
    def time_goes_on(self) -> None:
        self.hands.make_due()

    @rule()
    def worker_dies(self) -> None:
        self.hands.store.tasks.revoke("w1", WORLD)

    @rule()
    def clean_up(self) -> None:
        for run in self.hands.store.runs.to_clean():
            self.hands.clean(run)

    @rule()
    def data_changes(self) -> None:
        self.data += 1

    # ---- the promises ----

    @invariant()
    def the_run_is_what_its_tasks_are(self) -> None:
        for number in self.runs:
            run, tasks = self.hands.run(number), self.hands.tasks(number)
            derived = derive([TaskFacts(task.kind, task.state, task.attempt, task.reason) for task in tasks])
            assert (run.state, run.verdict, run.reason) == (derived.state, derived.verdict, derived.reason)
            assert (run.finished_at is not None) == run.state.final
            assert run.attempts == len(self.hands.store.inside.attempts(number)) == sum(t.attempt for t in tasks)
            for task in tasks:
                assert (task.finished_at is not None) == (task.state in FINAL_TASK_STATES)
                assert (task.worker is not None) == (task.state is TaskState.RUNNING)

    @invariant()
    def attempts_only_rise(self) -> None:
        for number in self.runs:
            for task in self.hands.tasks(number):
                assert task.attempt >= self.attempts.get(task.id, 0)
                self.attempts[task.id] = task.attempt

    @invariant()
    def finished_units_are_never_lost(self) -> None:
        for number in self.runs:
            run = self.hands.run(number)
            assert self.hands.done(number) == self.done[number]
            if run.units.total is not None and all(t.state is not TaskState.RUNNING for t in self.hands.tasks(number)):
                counts = self.hands.store.inside.unit_counts(number).get("candidate")
                assert counts is None or counts == run.units
            if run.state is RunState.DONE:
                assert self.done[number] == set(UNITS)

    @invariant()
    def what_is_queued_can_be_run(self) -> None:
        with self.hands.store.database.read() as connection:
            orphans = connection.execute(
                text(
                    "SELECT count(*) FROM tasks JOIN legs ON legs.run = tasks.run AND legs.name = tasks.leg"
                    " WHERE tasks.kind = 'verify' AND tasks.state IN ('queued', 'running') AND NOT legs.prepared"
                )
            ).scalar_one()
            live = connection.execute(task_table.select().where(task_table.c.state == "running")).all()
        assert orphans == 0
        assert len({row.id for row in live}) == len(live)


Work.TestCase.settings = settings(
    max_examples=settings.default.max_examples // 4,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWork = Work.TestCase
