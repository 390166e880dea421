"""Why is it not running? An answer in words, from facts alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.run import NO_ENGINE, Run, RunState, Task, TaskState, Worker
from runner.model import TaskKind

NAMED = 3  # runs that are told by their numbers


@dataclass(frozen=True)
class Waiting:
    """What a run waits for: a stable code, a sentence for people, and until when, where that is known."""

    code: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True)
class PoolFacts:
    """A pool as far as it matters to who waits for it.

    `workers`: its slots that were heard of in the last seconds. `busy`: the run of each task that one of them does.
    `queued`: its tasks that wait, those of the run itself included.
    """

    name: str
    workers: tuple[Worker, ...]
    busy: Mapping[int, int]
    queued: int


def why_not_running(run: Run, tasks: Sequence[Task], pool: Callable[[], PoolFacts], now: datetime) -> Waiting | None:
    """Say what a run waits for; None when something of it runs, or when it has ended. `pool` is asked when it matters."""
    states = [task.state for task in tasks]
    if run.state.final:
        return None
    if TaskState.RUNNING in states:
        if run.cancel_requested:
            return Waiting("cancelling", "Waiting for its containers to end.")
        return None
    backing_off = [task for task in tasks if task.state is TaskState.INTERRUPTED]
    if run.state is RunState.INTERRUPTED and backing_off:
        return _backing_off(run, min(backing_off, key=lambda task: task.due_at), now)
    queued = [task for task in tasks if task.state is TaskState.QUEUED]
    if queued and min(task.due_at for task in queued) > now:
        text = "What is left of its attempts before is cleaned up first."
        return Waiting("cleaning_up", text, min(task.due_at for task in queued))
    return _for_a_slot(queued, pool())


def _backing_off(run: Run, first: Task, now: datetime) -> Waiting:
    why = run.reason.text if run.reason else "Something outside of the branch got in the way."
    if first.due_at <= now:
        return Waiting("backing_off", f"{why} It is tried again any moment.", first.due_at)
    return Waiting("backing_off", f"{why} The next try is at {first.due_at:%H:%M:%S} UTC.", first.due_at)


def _for_a_slot(queued: Sequence[Task], pool: PoolFacts) -> Waiting:
    start = f"Start one: seatrial worker --pool {pool.name}"
    if not pool.workers:
        return Waiting("no_worker", f"No worker of pool {pool.name} is running. {start}")
    free = [worker for worker in pool.workers if not worker.draining]
    if not free:
        text = f"The workers of pool {pool.name} end what they do and take nothing new. {start}"
        return Waiting("draining", text)
    if all(worker.task is not None for worker in free):
        prepared = bool(queued) and all(task.kind is TaskKind.VERIFY for task in queued)
        begin = f"Prepared; {_count(len(queued), 'batch', 'batches')} of it wait. " if prepared else ""
        slots = "The only slot" if len(free) == 1 else f"All {len(free)} slots"
        verb = "is" if len(free) == 1 else "are"
        tasks = [worker.task for worker in free if worker.task is not None]
        busy = sorted({pool.busy[task] for task in tasks if task in pool.busy})
        behind = f"; {_count(pool.queued, 'task', 'tasks')} in the queue" if pool.queued > 1 else ""
        text = f"{begin}{slots} of pool {pool.name} {verb} busy{_with(busy)}{behind}."
        return Waiting("slots_busy", text)
    short = {worker.host: worker.shortage for worker in free if worker.task is None and worker.shortage}
    if short and all(worker.task is not None or worker.shortage for worker in free):
        hosts = " ".join(_lacks(host, why) for host, why in sorted(short.items()))
        others = " The other slots are busy." if any(worker.task is not None for worker in free) else ""
        if any(why.startswith(NO_ENGINE) for why in short.values()):
            return Waiting("no_engine", f"No host takes new work. {hosts}{others} It begins when that is mended.")
        return Waiting("disk_low", f"No host takes new work. {hosts}{others} It begins when there is room again.")
    return Waiting("about_to_start", "A worker is about to take it.")


def _lacks(host: str, why: str) -> str:
    return f"{host}: {why}." if why.startswith(NO_ENGINE) else f"{host} is below its disk floor: {why}."


def _with(runs: Sequence[int]) -> str:
    """Name the runs that keep the slots busy: ` with #12, #15 and 4 more`."""
    if not runs:
        return ""
    named = [f"#{run}" for run in runs[:NAMED]]
    if len(runs) > NAMED:
        named.append(f"{len(runs) - NAMED} more")
    return " with " + (named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1])


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
