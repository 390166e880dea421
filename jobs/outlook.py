"""What can be said of runs and pools in words: how long, why not yet, how busy, what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from jobs.adapters.sql_store import Store
from jobs.run import RunState, TaskState, Worker
from jobs.settings import Settings

UNITS_FOR_A_PACE = 20  # with fewer of its own, a run's pace is guessed better from the last run


@dataclass(frozen=True)
class Estimate:
    """How long it will take: seconds left, units a minute, and where the figure comes from."""

    seconds_left: float | None
    units_per_minute: float | None
    basis: str


@dataclass(frozen=True)
class PoolStatus:
    """A pool, its slots and its load."""

    name: str
    slots: int
    workers: tuple[Worker, ...]
    queued: int
    running: int


class Outlook:
    """Estimates and explanations, read from the store; nothing here writes."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._last_pace = lru_cache(512)(lambda project, run: store.ledger.last_pace(project, before=run))

    def estimate(self, run: int) -> Estimate | None:
        """Estimate what is left: from this run's own units, or from the last run's while it has too few."""
        found = self._store.runs.get(run)
        if found.state.final or found.units.total is None:
            return None
        finished, seconds = self._store.inside.unit_seconds(run)
        last = self._last_pace(found.project, run) if finished < UNITS_FOR_A_PACE else None
        if last is not None:
            each, basis = last[1], f"from run {last[0]}"
        elif finished and seconds:
            each, basis = seconds / finished, "from this run's finished units"
        else:
            return None
        left = found.units.total - found.units.done - found.units.failed
        parallel = max(1, sum(1 for task in self._store.inside.tasks(run) if task.state is TaskState.RUNNING))
        return Estimate(left * each / parallel, 60.0 * parallel / each if each else None, basis)

    def explain(self, run: int) -> str:
        """Answer "why is it not running?"; empty when it runs or has ended."""
        found = self._store.runs.get(run)
        if found.state.final or found.state is RunState.RUNNING:
            return ""
        if found.state is RunState.INTERRUPTED:
            due = [t.due_at for t in self._store.inside.tasks(run) if t.state is TaskState.INTERRUPTED]
            when = f" The next try is at {min(due):%H:%M:%S} UTC." if due else ""
            return (found.reason.text if found.reason else "Interrupted.") + when
        pool = next((p for p in self.capacity() if p.name == found.pool), None)
        if pool is None or not pool.workers:
            return f"No worker of pool {found.pool} is running. Start one: seatrial worker --pool {found.pool}"
        busy = sum(1 for worker in pool.workers if worker.task is not None)
        if busy >= len(pool.workers):
            slots = f"{busy} of {len(pool.workers)} are busy, {pool.queued} queued"
            return f"Waiting for a slot of pool {found.pool}: {slots}."
        return "A worker is about to take it."

    def capacity(self) -> list[PoolStatus]:
        """List the pools with their workers and load."""
        queue = self._store.inside.queue()
        known = self._store.workers.workers()
        return [
            PoolStatus(
                name=name,
                slots=pool.slots,
                workers=tuple(worker for worker in known if worker.pool == name),
                queued=queue.get(name, {}).get("queued", 0) + queue.get(name, {}).get("interrupted", 0),
                running=queue.get(name, {}).get("running", 0),
            )
            for name, pool in sorted(self._settings.pools.items())
        ]

    def healthy(self) -> list[str]:
        """Tell what is wrong, in words; empty when all is well."""
        problems = self._store.problems()
        if not problems and not self._store.workers.workers():
            problems.append("No worker is running: nothing will be verified. Start one: seatrial worker")
        return problems
