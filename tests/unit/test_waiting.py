"""Why is it not running? Each answer, from facts alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.heartbeats import COMPARER, SILENT_SECONDS, SWEEPER, Signs
from jobs.machines import Machine, MachineState
from jobs.run import CLOSED, NO_ENGINE, NO_FIT, Leg, Run, RunState, Task, TaskState, UnitCounts, Worker
from jobs.waiting import Facts, Machines, PoolFacts, Waiting, why_not_running
from runner.model import Reason, TaskKind
from runner.quota import Used

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 22, 14, 2, tzinfo=UTC)
LEG = Leg("candidate", "main", "a" * 40, "", "", "seatrial.yml", "", None, None, None, False)
RUN = Run(
    id=7,
    project="accounts",
    legs=(LEG,),
    state=RunState.QUEUED,
    verdict=None,
    reason=None,
    units=UnitCounts(),
    attempts=0,
    user="mio",
    note="",
    priority=0,
    units_filter=None,
    database=None,
    pool="local",
    cancel_requested=False,
    created_at=NOW,
    started_at=None,
    finished_at=None,
)
TASK = Task(
    id=70,
    run=7,
    leg="candidate",
    kind=TaskKind.PREPARE,
    batch=0,
    state=TaskState.QUEUED,
    attempt=0,
    execution=0,
    pool="local",
    host=None,
    worker=None,
    reason=None,
    priority=0,
    units_total=0,
    units_done=0,
    units_failed=0,
    log_size=0,
    created_at=NOW,
    due_at=NOW,
    started_at=None,
    finished_at=None,
)


def slot(number: int, task: int | None = None, *, draining: bool = False) -> Worker:
    return Worker(f"host-a-{number}", "host-a", "local", number, NOW, NOW, task, draining)


def pool(*workers: Worker, queued: int = 1) -> PoolFacts:
    busy = {worker.task: worker.task // 10 for worker in workers if worker.task is not None}
    return PoolFacts("local", workers, busy, queued)


def signs(*heard: str, now: datetime = NOW, put_off: Mapping[int, str] | None = None) -> Signs:
    return Signs(now, dict.fromkeys(heard or (SWEEPER, COMPARER), now), put_off or {})


def ask(workers: PoolFacts, *tasks: Task, run: Run = RUN, now: datetime = NOW) -> Waiting | None:
    return why_not_running(run, tasks or (TASK,), Facts(signs(now=now), lambda: workers))


@pytest.mark.parametrize(
    ("workers", "code", "text"),
    [
        (pool(), "no_worker", "No worker of pool local is running. Start one: seatrial worker --pool local"),
        (
            pool(slot(1, draining=True), slot(2, 120, draining=True)),
            "draining",
            "The workers of pool local end what they do and take nothing new. Start one: seatrial worker --pool local",
        ),
        (pool(slot(1, 120)), "slots_busy", "The only slot of pool local is busy with #12."),
        (
            pool(slot(1, 150), slot(2, 120), queued=4),
            "slots_busy",
            "All 2 slots of pool local are busy with #12 and #15; 4 tasks in the queue.",
        ),
        (
            pool(*(slot(n, n * 10) for n in range(12, 17))),
            "slots_busy",
            "All 5 slots of pool local are busy with #12, #13, #14 and 2 more.",
        ),
        (pool(slot(1, 120), slot(2, draining=True)), "slots_busy", "The only slot of pool local is busy with #12."),
        (pool(slot(1, 120), slot(2)), "about_to_start", "A worker is about to take it."),
        (
            pool(slot(1, 120), slot(2), queued=3),
            "about_to_start",
            "A slot of pool local is about to take work; 3 tasks wait for it.",
        ),
        (pool(slot(1), slot(2), queued=2), "about_to_start", "A worker is about to take it."),
    ],
)
def test_a_queued_run_waits_for_a_slot(workers: PoolFacts, code: str, text: str) -> None:
    assert ask(workers) == Waiting(code, text)


def test_a_run_waits_for_room_on_the_hosts_that_are_free() -> None:
    low = replace(slot(1), shortage="200 MiB free for home (/srv/seatrial), the reserve is 1 GiB")
    found = ask(pool(low, replace(low, name="host-a-2"), slot(3, draining=True)))
    assert found == Waiting(
        "disk_low",
        "No host takes new work. host-a is below its disk floor: 200 MiB free for home (/srv/seatrial), the reserve is "
        "1 GiB. It begins when there is room again.",
    )
    found = ask(pool(low, slot(2, 120)))
    assert found is not None
    assert found.text.endswith("the reserve is 1 GiB. The other slots are busy. It begins when there is room again.")


def test_a_run_waits_for_an_engine() -> None:
    away = replace(slot(1), shortage=f"{NO_ENGINE}: It does not answer")
    found = ask(pool(away))
    assert found == Waiting(
        "no_engine",
        "No host takes new work. host-a: its Docker engine is not ready: It does not answer. It begins when that is "
        "mended.",
    )
    low = replace(slot(2), host="host-b", shortage="200 MiB free")
    found = ask(pool(away, low))
    assert found is not None
    assert (found.code, "host-b is below its disk floor: 200 MiB free." in found.text) == ("no_engine", True)


def test_a_host_with_room_takes_what_another_cannot() -> None:
    found = ask(pool(replace(slot(1), shortage="no room"), slot(2)))
    assert found == Waiting("about_to_start", "A worker is about to take it.")


def test_a_slot_that_lacks_something_is_not_about_to_take_work() -> None:
    low = replace(slot(1), host="host-b", shortage="200 MiB free")
    found = ask(pool(low, slot(2), queued=2))
    assert found == Waiting("about_to_start", "A slot of pool local is about to take work; 2 tasks wait for it.")
    little = replace(low, shortage=f"{NO_FIT}: 200 MiB free")
    assert ask(pool(little, slot(2), queued=2)) == Waiting("about_to_start", "A worker is about to take it."), (
        "a run that needs no certain room fits there"
    )


def test_a_slot_whose_task_has_ended_meanwhile_is_not_named() -> None:
    facts = PoolFacts("local", (slot(1, 120),), {}, 1)
    assert ask(facts) == Waiting("slots_busy", "The only slot of pool local is busy.")


def test_a_prepared_run_whose_batches_wait_says_so() -> None:
    run = replace(RUN, state=RunState.RUNNING)
    prepare = replace(TASK, state=TaskState.DONE, attempt=1)
    batches = [replace(TASK, id=70 + n, kind=TaskKind.VERIFY, batch=n) for n in (1, 2)]
    found = ask(pool(slot(1, 120)), prepare, *batches, run=run)
    assert found is not None
    assert found.text == "Prepared; 2 batches of it wait. The only slot of pool local is busy with #12."


def test_nothing_is_said_of_what_runs_or_has_ended() -> None:
    running = replace(TASK, state=TaskState.RUNNING, attempt=1)
    assert ask(pool(slot(1, 70)), running, replace(TASK, id=71), run=replace(RUN, state=RunState.RUNNING)) is None
    ended = replace(RUN, state=RunState.CANCELLED)
    assert ask(pool(), replace(TASK, state=TaskState.CANCELLED), run=ended) is None


def test_a_cancelled_run_waits_for_its_containers() -> None:
    run = replace(RUN, state=RunState.RUNNING, cancel_requested=True)
    found = ask(pool(slot(1, 70)), replace(TASK, state=TaskState.RUNNING), run=run)
    assert found == Waiting("cancelling", "Waiting for its containers to end.")


def test_an_interrupted_run_backs_off_until_its_next_try() -> None:
    run = replace(RUN, state=RunState.INTERRUPTED, reason=Reason("database_lost", "The connection dropped."))
    soon, later = NOW + timedelta(seconds=11), NOW + timedelta(seconds=60)
    tasks = [replace(TASK, id=n, state=TaskState.INTERRUPTED, due_at=due) for n, due in ((71, later), (72, soon))]
    found = ask(pool(slot(1)), *tasks, run=run)
    assert found == Waiting("backing_off", "The connection dropped. The next try is at 14:02:11 UTC.", soon)
    late = ask(pool(slot(1)), *tasks, run=run, now=soon)
    assert late == Waiting("backing_off", "The connection dropped. It is tried again any moment.", soon)
    unknown = ask(pool(slot(1)), *tasks, run=replace(run, reason=None))
    assert unknown is not None
    assert unknown.text.startswith("Something outside of the branch got in the way.")


def test_a_resumed_run_waits_for_the_end_of_its_clean_up() -> None:
    due = NOW + timedelta(seconds=40)
    found = ask(pool(slot(1)), replace(TASK, due_at=due))
    assert found == Waiting("cleaning_up", "What is left of its attempts before is cleaned up first.", due)


def test_what_was_queued_before_the_clock_was_set_back_waits_for_a_slot() -> None:
    due = NOW + timedelta(hours=2)
    found = ask(pool(slot(1)), replace(TASK, due_at=due))
    assert found is not None
    assert found.code == "about_to_start"
    run = replace(RUN, state=RunState.INTERRUPTED, reason=Reason("database_lost", "The connection dropped."))
    late = ask(pool(slot(1)), replace(TASK, state=TaskState.INTERRUPTED, due_at=due), run=run)
    assert late is not None
    assert late.text == "The connection dropped. It is tried again any moment."


def test_a_task_is_kept_for_the_host_on_which_its_container_stands() -> None:
    until = NOW + timedelta(seconds=20)
    batches = [replace(TASK, id=70 + n, kind=TaskKind.VERIFY, batch=n) for n in (1, 2)]

    def told(kept: dict[int, tuple[str, datetime]]) -> Waiting | None:
        return why_not_running(RUN, batches, Facts(signs(), lambda: pool(slot(1)), kept=lambda: kept))

    found = told({71: ("host-b", until), 72: ("host-b", until + timedelta(seconds=5))})
    assert found == Waiting(
        "kept_for_its_host",
        "Its container stands on host-b, whose worker is expected back until 14:02:20 UTC. Then another host goes on.",
        until,
    )
    ready = Waiting("about_to_start", "A worker is about to take it.")
    assert told({71: ("host-b", until)}) == ready, "the other batch is nobody's"
    assert told({71: ("host-b", until), 72: ("host-a", until)}) == ready, "its host is there"


def test_a_pool_that_was_taken_out_of_the_settings_is_named() -> None:
    found = ask(replace(pool(), known=False))
    assert found is not None
    assert (found.code, "local is not in seatrial.toml any more" in found.text) == ("no_pool", True)
    there = ask(replace(pool(slot(1)), known=False))
    assert there is not None
    assert there.code == "about_to_start", "another host's settings have it"


def test_a_host_that_is_about_to_go_is_not_called_full() -> None:
    going = replace(slot(1), shortage=f"{CLOSED}: EC2 announced spot interruption for 14:04 UTC")
    assert ask(pool(going)) == Waiting(
        "host_closed",
        "No host takes new work. host-a: it is about to go: EC2 announced spot interruption for 14:04 UTC. It begins on "
        "another host of pool local, or when this one is back.",
    )
    low = replace(slot(2), host="host-b", shortage="200 MiB free")
    found = ask(pool(going, low))
    assert found is not None
    assert (found.code, found.text.count("disk floor")) == ("disk_low", 1)


def test_every_code_is_documented() -> None:
    source = (ROOT / "jobs" / "waiting.py").read_text("utf-8")
    codes = set(re.findall(r'Waiting\(\s*"(\w+)"', source))
    told = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert "slots_busy" in codes
    assert {code for code in codes if f"`{code}`" not in told} == set()


# ---- what nobody does when a process is missing ----

COMPARED = replace(RUN, state=RunState.RUNNING, legs=(replace(LEG, name="baseline"), LEG))
ENDED = [replace(TASK, id=70 + n, kind=TaskKind.VERIFY, state=TaskState.DONE, attempt=1) for n in (1, 2)]


@pytest.mark.parametrize(
    ("left", "heard", "put_off", "code", "text"),
    [
        (12, COMPARER, {}, "comparing", "12 units are left to compare."),
        (1, COMPARER, {8: "no room"}, "comparing", "1 unit is left to compare."),
        (0, COMPARER, {}, "comparing", "The comparison is about to end."),
        (
            1200,
            COMPARER,
            {7: "unit a: No room"},
            "comparing_later",
            "1,200 units are left to compare. That is put off, and tried again by itself: unit a: No room.",
        ),
        (
            2,
            SWEEPER,
            {7: "unit a: long ago"},
            "no_comparer",
            "2 units are left to compare. No comparer is running. Start it: seatrial comparer",
        ),
        (0, SWEEPER, {}, "no_comparer", "No comparer is running. Start it: seatrial comparer"),
    ],
)
def test_a_run_whose_batches_have_ended_waits_for_the_comparer(
    left: int, heard: str, put_off: dict[int, str], code: str, text: str
) -> None:
    facts = Facts(signs(heard, put_off=put_off), lambda: pool(slot(1, 120)), left=lambda: left)
    assert why_not_running(COMPARED, ENDED, facts) == Waiting(code, text)


def test_a_compare_run_with_batches_that_wait_is_not_held_up_by_its_comparison() -> None:
    found = ask(pool(slot(1, 120)), *ENDED, replace(TASK, id=73, kind=TaskKind.VERIFY), run=COMPARED)
    assert found is not None
    assert found.code == "slots_busy"


def test_a_run_that_is_interrupted_is_not_tried_again_without_a_sweeper() -> None:
    run = replace(RUN, state=RunState.INTERRUPTED, reason=Reason("database_lost", "The connection dropped."))
    tasks = [replace(TASK, state=TaskState.INTERRUPTED)]
    found = why_not_running(run, tasks, Facts(signs(COMPARER), lambda: pool(slot(1))))
    assert found == Waiting(
        "no_sweeper",
        "The connection dropped. It is not tried again by itself: no sweeper is running. Start it: seatrial sweeper",
        NOW,
    )
    old = Signs(NOW, {SWEEPER: NOW - timedelta(seconds=SILENT_SECONDS + 1)})
    found = why_not_running(run, tasks, Facts(old, lambda: pool(slot(1))))
    assert found is not None
    assert found.code == "no_sweeper"


def test_a_task_of_a_silent_worker_is_given_to_no_other_without_a_sweeper() -> None:
    run = replace(RUN, state=RunState.RUNNING)
    running = replace(TASK, state=TaskState.RUNNING, attempt=1, host="host-b", worker="host-b-1")
    asked = Facts(signs(COMPARER), lambda: pool(slot(1)))
    assert why_not_running(run, [running], asked) == Waiting(
        "no_sweeper",
        "The worker host-b-1 on host-b fell silent, and its task is given to no other: no sweeper is running. Start "
        "it: seatrial sweeper",
    )
    other = replace(running, id=71, host="host-a", worker="host-a-1")
    assert why_not_running(run, [running, other], asked) is None, "one of them works"
    assert ask(pool(slot(1)), running, run=run) is None, "the sweeper sees to it"


def test_a_cancelled_run_whose_tasks_wait_is_about_to_end() -> None:
    run = replace(RUN, state=RunState.INTERRUPTED, cancel_requested=True)
    found = ask(pool(slot(1)), replace(TASK, state=TaskState.INTERRUPTED), run=run)
    assert found == Waiting("cancelling", "What waits of it is about to be ended.")
    queued = replace(RUN, cancel_requested=True)
    assert ask(pool(slot(1)), run=queued) == found
    nobody = ask(pool(), run=queued)
    assert nobody is not None
    assert nobody.code == "no_worker"


# ---- a pool whose machines are started and stopped ----


def machine(state: MachineState, seconds: float = 38, **more: object) -> Machine:
    then = NOW - timedelta(seconds=seconds)
    values: dict[str, object] = {"instance": "i-1", "pool": "local", "state": state, "state_since": then} | more
    return Machine(**{"started_at": then if state.billed else None} | values)  # type: ignore[arg-type]


STOPPED, STOPPING = machine(MachineState.STOPPED), machine(MachineState.STOPPING)
FULL = {"i-1": NOW + timedelta(seconds=90)}
WAITED = replace(TASK, created_at=NOW - timedelta(seconds=95))


@pytest.mark.parametrize(
    ("machines", "code", "text"),
    [
        (
            Machines(),
            "machine_wanted",
            "A machine of pool local is about to be started. Waiting for 1 min 35 s so far.",
        ),
        (Machines((STOPPED,)), "machine_wanted", "about to be started"),
        (Machines((machine(MachineState.PENDING),)), "machine_starting", "A machine is starting, 38 s so far."),
        (
            Machines((machine(MachineState.RUNNING, seen_at=NOW - timedelta(days=1)),)),
            "machine_starting",
            "A machine is starting, 38 s so far.",
        ),
        (
            Machines((STOPPING,)),
            "machine_stopping",
            "The machine is stopping, and is started when it has stopped. Waiting for 1 min 35 s so far.",
        ),
        (
            Machines((STOPPED,), FULL),
            "no_capacity",
            "EC2 has no capacity for i-1. It is asked again at 14:03:30 UTC. Waiting for 1 min 35 s so far.",
        ),
        (
            Machines((STOPPED, replace(STOPPED, instance="i-2")), FULL),
            "no_capacity",
            "EC2 has no capacity for i-1. Trying i-2. Waiting for 1 min 35 s so far.",
        ),
        (
            Machines(
                (machine(MachineState.PENDING, instance="i-2"), STOPPED), {"m7i.large": NOW + timedelta(minutes=1)}
            ),
            "machine_starting",
            "EC2 has no capacity for type m7i.large. A machine is starting, 38 s so far.",
        ),
        (Machines((STOPPED,), {"i-1": NOW}), "machine_wanted", "about to be started"),
        (
            Machines((STOPPED,), watched=False),
            "no_controller",
            "No controller looks after pool local, so no machine is started. Start it: seatrial sweeper",
        ),
        (Machines((replace(machine(MachineState.PENDING), refused="It has the tag env=prod."),)), "machine_wanted", ""),
        (
            Machines((replace(STOPPED, refused="It has the tag env=prod."), machine(MachineState.GONE)), grows=False),
            "no_machine",
            "no machine that could be started (i-1: It has the tag env=prod; i-1: EC2 says that it is gone). Check its",
        ),
        (Machines(grows=False), "no_machine", "no machine that could be started. Check"),
        (
            Machines((machine(MachineState.UNKNOWN),), grows=False),
            "no_machine",
            "(i-1: EC2 has not said yet what it does)",
        ),
        (Machines((STOPPED,), grows=False), "machine_wanted", "about to be started"),
        (
            Machines((STOPPED,), problem="cloud_away"),
            "cloud_away",
            "EC2 cannot be asked to start a machine (cloud_away), and is asked again and again. Waiting for 1 min 35 s",
        ),
        (Machines((machine(MachineState.PENDING),), problem="cloud_away"), "machine_starting", ""),
        (
            Machines((machine(MachineState.RUNNING, seen_at=NOW),)),
            "machine_silent",
            "i-1 is on, and nothing is heard of its worker. If that stays so, see the journal there. Waiting for",
        ),
    ],
)
def test_how_far_the_machine_is_is_told(machines: Machines, code: str, text: str) -> None:
    found = ask(PoolFacts("local", (), {}, 1, machines), WAITED)
    assert found is not None
    assert (found.code, text in found.text) == (code, True), found.text


def test_a_machine_that_is_on_has_slots_like_any_other() -> None:
    ready = machine(MachineState.RUNNING, host="h1", seen_at=NOW)
    slot = Worker("w1", "h1", "local", 1, NOW, NOW, None, False)
    told = ask(PoolFacts("local", (slot,), {}, 1, Machines((ready,))), WAITED)
    assert told is not None
    assert told.code == "about_to_start"
    stopping = replace(ready, state=MachineState.STOPPING)
    told = ask(PoolFacts("local", (slot,), {}, 1, Machines((stopping,))), WAITED)
    assert told is not None
    assert told.code == "machine_stopping"


def test_another_machine_is_waited_for_when_the_one_that_is_on_is_about_to_go() -> None:
    ready = machine(MachineState.RUNNING, host="host-a", seen_at=NOW)
    going = replace(slot(1), shortage=f"{CLOSED}: EC2 announced a spot interruption")
    coming = machine(MachineState.PENDING, instance="i-2")
    told = ask(PoolFacts("local", (going,), {}, 1, Machines((ready, coming))), WAITED)
    assert told is not None
    assert told.code == "machine_starting"
    alone = ask(PoolFacts("local", (going,), {}, 1, Machines((ready,))), WAITED)
    assert alone is not None
    assert alone.code == "host_closed"


def test_a_run_waits_for_the_room_that_the_run_before_needed() -> None:
    little = replace(slot(1), shortage=f"{NO_FIT}: 1.5 GiB are free for home (/srv), the reserve is 1 GiB")
    large = replace(TASK, need=Used(6 << 30, 1_200))
    found = ask(pool(little, replace(slot(2, 120), host="host-b")), large)
    assert found == Waiting(
        "no_room",
        "No host has room for it: what is next of it needs 6 GiB in 1,200 files beside the reserve, as in the run before. "
        "host-a: too little room for what is next: 1.5 GiB are free for home (/srv), the reserve is 1 GiB. The other "
        "slots are busy. It begins when there is room. To be let in with less, a branch lowers workspace.limits.disk in "
        "seatrial.yml.",
    )
    assert ask(pool(little), TASK) == Waiting("about_to_start", "A worker is about to take it.")
    assert ask(pool(little, replace(slot(2), host="host-b")), large) == Waiting(
        "about_to_start", "A worker is about to take it."
    )
