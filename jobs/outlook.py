"""What can be said of runs and pools in words: how long, why not yet, how busy, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jobs.adapters.sql_store import Store
from jobs.heartbeats import COMPARER, SWEEPER
from jobs.pools import WATCHED_SECONDS
from jobs.run import Run, Task, TaskState, Worker, unlisted
from jobs.settings import Settings
from jobs.submission import SubmissionRefused
from jobs.waiting import Facts, Machines, PoolFacts, Waiting, why_not_running
from runner.errors import StoreUnavailable
from runner.units import MAX_PATTERN, UnitFilterError, filter_units

ALIVE_SECONDS = 15.0  # a slot shows itself every five
FIRST_UNITS = 5
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
    provider: str = "local"


@dataclass(frozen=True)
class KnownUnits:
    """The units that a run of before listed, and which of them a filter chooses; `first`: some of those."""

    run: int
    ref: str
    total: int
    matching: int
    first: tuple[str, ...]


class Outlook:
    """Estimates and explanations, read from the store; nothing here writes."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        # A run's list of units is kept while it has as many: another preparation may list others.
        self._unit_names = lru_cache(8)(lambda run, total: store.inside.unit_names(run))
        self._last_pace = lru_cache(512)(lambda project, run: store.ledger.last_pace(project, before=run))

    def estimate(self, run: Run, tasks: Sequence[Task]) -> Estimate | None:
        """Estimate what is left: from this run's own units, or from the last run's while it has too few.

        None when nothing tells, and while a leg has yet to list its units.
        """
        if run.state.final or run.units.total is None or unlisted(run, tasks):
            return None
        finished, seconds = self._store.inside.unit_seconds(run.id)
        last = self._last_pace(run.project, run.id) if finished < UNITS_FOR_A_PACE else None
        if last is not None:
            each, basis = last[1], f"from run {last[0]}"
        elif finished and seconds:
            each, basis = seconds / finished, "from this run's finished units"
        else:
            return None
        left = run.units.total - run.units.done - run.units.failed
        parallel = max(1, sum(1 for task in tasks if task.state is TaskState.RUNNING))
        return Estimate(left * each / parallel, 60.0 * parallel / each if each else None, basis)

    def known_units(self, project: str, ref: str | None = None, pattern: str | None = None) -> KnownUnits | None:
        """Guess which units a filter would choose, by the last run of the ref, or of the project, that listed all.

        None when there is none: what a branch's units are is known only when it has said so. Raises RequestError for a
        filter that is none.
        """
        last = self._store.runs.last_planned(project, ref) if ref else None
        last = last or self._store.runs.last_planned(project, None)
        if last is None:
            return None
        run, shown, total = last
        names = self._unit_names(run, total)
        try:
            chosen = filter_units(names, pattern)
        except UnitFilterError as error:
            if len(pattern or "") > MAX_PATTERN:
                raise SubmissionRefused(error.text, problems=error.problems) from None
            chosen = ()
        return KnownUnits(run, shown, len(names), len(chosen), chosen[:FIRST_UNITS])

    def waiting(self, run: Run, tasks: Sequence[Task]) -> Waiting | None:
        """Answer "why is it not running?"; None when something of it runs or it has ended."""
        store = self._store
        facts = Facts(
            store.heartbeats.signs(),
            pool=lambda: self._pool_facts(run.pool),
            left=lambda: store.compare_views.counts(run.id)[1],
            kept=lambda: store.inside.kept(run.id),
        )
        return why_not_running(run, tasks, facts)

    def _pool_facts(self, name: str) -> PoolFacts:
        workers = tuple(one for one in self._store.workers.workers(silent_after=ALIVE_SECONDS) if one.pool == name)
        busy = self._store.inside.runs_of([one.task for one in workers if one.task is not None])
        queued = self._store.inside.queue().get(name, {}).get("queued", 0)
        return PoolFacts(name, workers, busy, queued, self._machines_of(name), known=name in self._settings.pools)

    def _machines_of(self, pool: str) -> Machines | None:
        """Give the machines of a pool that are started when there is work; None where they are there anyway."""
        known = self._settings.pools.get(pool)
        if known is None or not known.is_ec2:
            return None
        machines = self._store.machines
        watch = next((one for one in machines.watches() if one.pool == pool), None)
        watched = watch is not None and (machines.time() - watch.seen_at).total_seconds() < WATCHED_SECONDS
        short = {name: until for name, (until, _) in machines.shortages(pool).items()}
        grows, problem = known.launch_template is not None, None if watch is None else watch.problem
        return Machines(tuple(machines.machines(pool)), short, watched, grows, problem)

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
                provider=pool.provider,
            )
            for name, pool in sorted(self._settings.pools.items())
        ]

    def refused(self) -> int:
        """Count the writes of attempts that were not the current one any more."""
        return self._store.tasks.refused()

    def healthy(self) -> list[str]:
        """Tell what is wrong, in words; empty when all is well."""
        try:
            return self._store.problems() or self._missing()
        except StoreUnavailable as error:  # it went away in between
            return [error.text]

    def _missing(self) -> list[str]:
        """Tell who is not there."""
        problems = []
        local = any(not pool.is_ec2 for pool in self._settings.pools.values())
        if local and not self._store.workers.workers():
            problems.append("No worker is running: nothing will be verified. Start one: seatrial worker")
        signs = self._store.heartbeats.signs()
        if signs.is_silent(SWEEPER):
            text = "No sweeper is running: nothing that was interrupted goes on by itself. Start it: seatrial sweeper"
            problems.append(text)
        if signs.is_silent(COMPARER):
            problems.append("No comparer is running: no compare run comes to its end. Start it: seatrial comparer")
        for pool in self._settings.pools:
            found = self._machines_of(pool)
            if found is not None and not found.watched:
                problems.append(f"No controller looks after pool {pool}, so no machine is started: seatrial sweeper")
        return problems
