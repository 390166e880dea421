"""Why is it not running? An answer in words, from facts alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from jobs.heartbeats import COMPARER, SWEEPER, Signs
from jobs.idle_policy import seconds_words
from jobs.machines import Machine, MachineState
from jobs.run import CLOSED, NO_ENGINE, NO_FIT, Run, RunState, Task, TaskState, Worker, is_due
from runner.model import TaskKind
from runner.quantities import format_size
from runner.quota import Used

NAMED = 3  # runs that are told by their numbers
_LESS = "It begins when there is room. To be let in with less, a branch lowers workspace.limits.disk in seatrial.yml."


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
    after them. `grows`: more of them can be made. `problem`: the code of the error with which EC2 cannot be asked.
    """

    known: tuple[Machine, ...] = ()
    short: Mapping[str, datetime] = field(default_factory=dict)
    watched: bool = True
    grows: bool = True
    problem: str | None = None


@dataclass(frozen=True)
class PoolFacts:
    """A pool as far as it matters to who waits for it.

    `workers`: its slots that were heard of in the last seconds. `busy`: the run of each task that one of them does.
    `queued`: its tasks that wait, those of the run itself included. `machines`: None where they are there anyway.
    `known`: the settings have it.
    """

    name: str
    workers: tuple[Worker, ...]
    busy: Mapping[int, int]
    queued: int
    machines: Machines | None = None
    known: bool = True


@dataclass(frozen=True)
class Facts:
    """What may keep a run from going on. What takes a look at the records is asked when it matters.

    `left`: how many of its units are yet to be compared. `kept`: which of its tasks are left to the host on which their
    containers stand, and until when.
    """

    signs: Signs
    pool: Callable[[], PoolFacts]
    left: Callable[[], int] = lambda: 0
    kept: Callable[[], Mapping[int, tuple[str, datetime]]] = dict


def why_not_running(run: Run, tasks: Sequence[Task], facts: Facts) -> Waiting | None:
    """Say what a run waits for; None when something of it runs, or when it has ended."""
    if run.state.final:
        return None
    running = [task for task in tasks if task.state is TaskState.RUNNING]
    if running:
        return _for_its_end(run, running, facts)
    queued = [task for task in tasks if task.state is TaskState.QUEUED]
    interrupted = [task for task in tasks if task.state is TaskState.INTERRUPTED]
    if not queued and not interrupted and run.baseline is not None:
        return _for_the_comparer(run, facts)
    if run.state is RunState.INTERRUPTED and interrupted:
        return _backing_off(run, min(interrupted, key=lambda task: task.due_at), facts.signs)
    now = facts.signs.now
    if queued and not any(is_due(task.due_at, now) for task in queued):
        text = "What is left of its attempts before is cleaned up first."
        return Waiting("cleaning_up", text, min(task.due_at for task in queued))
    pool = facts.pool()
    found = _for_a_machine(queued, pool, now) or _for_a_slot(queued, pool, facts.kept)
    if run.cancel_requested and found.code == "about_to_start":
        return Waiting("cancelling", "What waits of it is about to be ended.")
    return found


def _for_its_end(run: Run, running: Sequence[Task], facts: Facts) -> Waiting | None:
    """Say what keeps from ending what runs; None when it simply runs."""
    if facts.signs.is_silent(SWEEPER):
        heard = {worker.name for worker in facts.pool().workers}
        lost = running[0]
        if not any(task.worker in heard for task in running):
            text = (
                f"The worker {lost.worker} on {lost.host} fell silent, and its task is given to no other: {_NO_SWEEPER}"
            )
            return Waiting("no_sweeper", text)
    return Waiting("cancelling", "Waiting for its containers to end.") if run.cancel_requested else None


_NO_SWEEPER = "no sweeper is running. Start it: seatrial sweeper"


def _for_the_comparer(run: Run, facts: Facts) -> Waiting:
    left = facts.left()
    units = f"{_count(left, 'unit', 'units')} {'is' if left == 1 else 'are'} left to compare."
    if facts.signs.is_silent(COMPARER):
        return Waiting(
            "no_comparer", f"{units if left else ''} No comparer is running. Start it: seatrial comparer".strip()
        )
    why = facts.signs.put_off.get(run.id)
    if why is not None:
        return Waiting("comparing_later", f"{units} That is put off, and tried again by itself: {why}.")
    return Waiting("comparing", units if left else "The comparison is about to end.")


def _backing_off(run: Run, first: Task, signs: Signs) -> Waiting:
    why = run.reason.text if run.reason else "Something outside of the branch got in the way."
    if signs.is_silent(SWEEPER):
        return Waiting("no_sweeper", f"{why} It is not tried again by itself: {_NO_SWEEPER}", first.due_at)
    if run.cancel_requested:
        return Waiting("cancelling", "What waits of it is about to be ended.")
    if is_due(first.due_at, signs.now):
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
    heard = [worker for worker in pool.workers if worker.host not in going]
    if any(not worker.draining and not _is_closed(worker) for worker in heard):
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
    if pool.machines.problem is not None:
        text = (
            f"EC2 cannot be asked to start a machine ({pool.machines.problem}), and is asked again and again. {so_far}"
        )
        return Waiting("cloud_away", text)
    if any(one.state is MachineState.STOPPING for one in ours):
        return Waiting("machine_stopping", f"The machine is stopping, and is started when it has stopped. {so_far}")
    if short:
        left = [one.instance for one in ours if one.state is MachineState.STOPPED and one.instance not in short]
        again = min(until for until in pool.machines.short.values() if until > now)
        then = f"Trying {left[0]}." if left else f"It is asked again at {again:%H:%M:%S} UTC."
        return Waiting("no_capacity", f"{lacking} {then} {so_far}", None if left else again)
    on = [one for one in ours if one.state.billed]
    if on and heard:
        return None
    if on:
        text = f"{on[0].instance} is on, and nothing is heard of its worker. If that stays so, see the journal there."
        return Waiting("machine_silent", f"{text} {so_far}")
    if not pool.machines.grows and not any(one.state is MachineState.STOPPED for one in ours):
        return Waiting("no_machine", _no_machine(pool.name, pool.machines.known))
    return Waiting("machine_wanted", f"A machine of pool {pool.name} is about to be started. {so_far}")


_STATES = {state: f"EC2 says that it is {state}" for state in MachineState} | {
    MachineState.UNKNOWN: "EC2 has not said yet what it does"
}


def _no_machine(pool: str, known: Sequence[Machine]) -> str:
    """Say why none of a pool's machines can be started."""
    why = [f"{one.instance}: {one.refused or _STATES[one.state]}".rstrip(".") for one in known]
    said = f" ({'; '.join(why[:NAMED])})" if why else ""
    return f"Pool {pool} has no machine that could be started{said}. Check its instances: seatrial doctor --aws"


def _is_closed(worker: Worker) -> bool:
    return worker.shortage is not None and worker.shortage.startswith(CLOSED)


def _has_worker(machine: Machine) -> bool:
    """Tell whether its worker was heard of since it was started."""
    seen = machine.seen_at
    return seen is not None and (machine.started_at is None or seen >= machine.started_at)


def _named(names: Sequence[str]) -> str:
    kinds = [f"type {name}" if "." in name else name for name in names]
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"


def _for_a_slot(
    queued: Sequence[Task], pool: PoolFacts, kept: Callable[[], Mapping[int, tuple[str, datetime]]]
) -> Waiting:
    start = f"Start one: seatrial worker --pool {pool.name}"
    if not pool.workers and not pool.known:
        text = (
            f"Pool {pool.name} is not in seatrial.toml any more. Add it there, or cancel this run and submit it anew."
        )
        return Waiting("no_pool", text)
    if not pool.workers:
        return Waiting("no_worker", f"No worker of pool {pool.name} is running. {start}")
    free = [worker for worker in pool.workers if not worker.draining]
    if not free:
        text = f"The workers of pool {pool.name} end what they do and take nothing new. {start}"
        return Waiting("draining", text)
    idle = [worker for worker in free if worker.task is None]
    if not idle:
        return _slots_busy(queued, pool, free)
    need = next((task.need for task in queued if task.need is not None), None)
    ready = [worker for worker in idle if not _shortage(worker, need)]
    if not ready:
        return _no_host(pool.name, idle, need, others=len(free) > len(idle))
    kept_for = _for_its_host(queued, {worker.host for worker in idle}, kept())
    return kept_for or Waiting("about_to_start", _about_to_start(queued, pool, len(ready)))


def _about_to_start(queued: Sequence[Task], pool: PoolFacts, ready: int) -> str:
    """Say that a slot is free that lacks nothing; who of several takes it is not known before it is taken."""
    if pool.queued <= max(len(queued), ready):
        return "A worker is about to take it."
    slots = f"A slot of pool {pool.name} is" if ready == 1 else f"{ready} slots of pool {pool.name} are"
    return f"{slots} about to take work; {_count(pool.queued, 'task waits', 'tasks wait')} for {'it' if ready == 1 else 'them'}."


def _slots_busy(queued: Sequence[Task], pool: PoolFacts, free: Sequence[Worker]) -> Waiting:
    prepared = bool(queued) and all(task.kind is TaskKind.VERIFY for task in queued)
    begin = f"Prepared; {_count(len(queued), 'batch', 'batches')} of it wait. " if prepared else ""
    slots = "The only slot" if len(free) == 1 else f"All {len(free)} slots"
    verb = "is" if len(free) == 1 else "are"
    tasks = [worker.task for worker in free if worker.task is not None]
    busy = sorted({pool.busy[task] for task in tasks if task in pool.busy})
    behind = f"; {_count(pool.queued, 'task', 'tasks')} in the queue" if pool.queued > 1 else ""
    return Waiting("slots_busy", f"{begin}{slots} of pool {pool.name} {verb} busy{_with(busy)}{behind}.")


def _no_host(pool: str, idle: Sequence[Worker], need: Used | None, *, others: bool) -> Waiting:
    """Say what each host lacks to take new work. What somebody has to mend comes before what passes."""
    short = {worker.host: worker.shortage or "" for worker in idle}
    hosts = " ".join(_lacks(host, why) for host, why in sorted(short.items()))
    hosts += " The other slots are busy." if others else ""
    text = f"No host takes new work. {hosts}"
    if any(why.startswith(NO_ENGINE) for why in short.values()):
        return Waiting("no_engine", f"{text} It begins when that is mended.")
    if need is not None and any(why.startswith(NO_FIT) for why in short.values()):
        return Waiting("no_room", f"{_needs(need)} {hosts} {_LESS}")
    if not all(map(_is_closed, idle)):
        return Waiting("disk_low", f"{text} It begins when there is room again.")
    return Waiting("host_closed", f"{text} It begins on another host of pool {pool}, or when this one is back.")


def _shortage(worker: Worker, need: Used | None) -> str | None:
    """Tell what a slot lacks for a run: too little room for another one is not its matter."""
    why = worker.shortage
    return None if why is None or (need is None and why.startswith(NO_FIT)) else why


def _needs(need: Used) -> str:
    size = f"{format_size(need.size)} in {need.files:,} files"
    return f"No host has room for it: what is next of it needs {size} beside the reserve, as in the run before."


def _for_its_host(
    queued: Sequence[Task], hosts: Collection[str], kept: Mapping[int, tuple[str, datetime]]
) -> Waiting | None:
    """Say which host is waited for; None when a slot that is free may take some of it."""
    if not queued or any(task.id not in kept or kept[task.id][0] in hosts for task in queued):
        return None
    host, until = min((kept[task.id] for task in queued), key=lambda one: one[1])
    text = f"Its container stands on {host}, whose worker is expected back until {until:%H:%M:%S} UTC. Then another host goes on."
    return Waiting("kept_for_its_host", text, until)


def _lacks(host: str, why: str) -> str:
    return (
        f"{host}: {why}." if why.startswith((NO_ENGINE, CLOSED, NO_FIT)) else f"{host} is below its disk floor: {why}."
    )


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
