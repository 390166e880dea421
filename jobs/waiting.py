"""Why is it not running? An answer in words, from facts alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from jobs.idle_policy import seconds_words
from jobs.machines import Machine, MachineState
from jobs.run import NO_ENGINE, Run, RunState, Task, TaskState, Worker, is_due
from runner.model import TaskKind

NAMED = 3  # runs that are told by their numbers


@dataclass(frozen=True)
class Waiting:
    """What a run waits for: a stable code, a sentence for people, and until when, where that is known."""

    code: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True)
class Machines:
    """The machines of a pool that are started when there is work.

    `short`: what EC2 has no capacity for, and until when it is not asked for that again. `watched`: a controller looks
    after them.
    """

    known: tuple[Machine, ...] = ()
    short: Mapping[str, datetime] = field(default_factory=dict)
    watched: bool = True


@dataclass(frozen=True)
class PoolFacts:
    """A pool as far as it matters to who waits for it.

    `workers`: its slots that were heard of in the last seconds. `busy`: the run of each task that one of them does.
    `queued`: its tasks that wait, those of the run itself included. `machines`: None where they are there anyway.
    """

    name: str
    workers: tuple[Worker, ...]
    busy: Mapping[int, int]
    queued: int
    machines: Machines | None = None


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
    if queued and not any(is_due(task.due_at, now) for task in queued):
        text = "What is left of its attempts before is cleaned up first."
        return Waiting("cleaning_up", text, min(task.due_at for task in queued))
    facts = pool()
    return _for_a_machine(queued, facts, now) or _for_a_slot(queued, facts)


def _backing_off(run: Run, first: Task, now: datetime) -> Waiting:
    why = run.reason.text if run.reason else "Something outside of the branch got in the way."
    if is_due(first.due_at, now):
        return Waiting("backing_off", f"{why} It is tried again any moment.", first.due_at)
    return Waiting("backing_off", f"{why} The next try is at {first.due_at:%H:%M:%S} UTC.", first.due_at)


def _for_a_machine(queued: Sequence[Task], pool: PoolFacts, now: datetime) -> Waiting | None:
    """Say how far the machine is that is needed; None when one that is on may take the work."""
    if pool.machines is None or not queued:
        return None
    since = min(task.created_at for task in queued)
    so_far = f"Waiting for {seconds_words(now - since)} so far."
    ours = [one for one in pool.machines.known if one.refused is None]
    going = {one.host for one in ours if one.state in (MachineState.STOPPING, MachineState.STOPPED)}
    if any(not worker.draining and worker.host not in going for worker in pool.workers):
        return None
    if not pool.machines.watched:
        text = f"No controller looks after pool {pool.name}, so no machine is started. Start it: seatrial sweeper"
        return Waiting("no_controller", text)
    coming = [one for one in ours if one.state.billed and not _has_worker(one)]
    short = sorted(name for name, until in pool.machines.short.items() if until > now)
    lacking = f"EC2 has no capacity for {_named(short)}." if short else ""
    if coming:
        begun = max(one.started_at or one.state_since for one in coming)
        text = f"{lacking} A machine is starting, {seconds_words(now - begun)} so far.".strip()
        return Waiting("machine_starting", text)
    if any(one.state is MachineState.STOPPING for one in ours):
        return Waiting("machine_stopping", f"The machine is stopping, and is started when it has stopped. {so_far}")
    if short:
        left = [one.instance for one in ours if one.state is MachineState.STOPPED and one.instance not in short]
        again = min(until for until in pool.machines.short.values() if until > now)
        then = f"Trying {left[0]}." if left else f"It is asked again at {again:%H:%M:%S} UTC."
        return Waiting("no_capacity", f"{lacking} {then} {so_far}", None if left else again)
    if any(one.state.billed for one in ours):
        return None
    return Waiting("machine_wanted", f"A machine of pool {pool.name} is about to be started. {so_far}")


def _has_worker(machine: Machine) -> bool:
    """Tell whether its worker was heard of since it was started."""
    seen = machine.seen_at
    return seen is not None and (machine.started_at is None or seen >= machine.started_at)


def _named(names: Sequence[str]) -> str:
    kinds = [f"type {name}" if "." in name else name for name in names]
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"


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
