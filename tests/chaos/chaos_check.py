"""The invariants of a trial, proven over its history. Pure: evidence in, violations in words out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Json = dict[str, Any]

FINAL = ("done", "failed", "errored", "cancelled")
# Which checks tell that something accepted was lost, and which that something was done, or noted, twice.
LOST = ("ends_once", "true_verdicts")
TWICE = ("one_attempt_at_a_time", "one_writer_at_a_time", "logs_only_grow", "one_container_at_a_time", "logs_are_whole",
         "marks_only_rise", "nothing_done_twice")  # fmt: skip
_LINE = re.compile(rb"^~ (\S+) (\d+) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class RunEvidence:
    """All that is known of one run when everything is quiet again.

    `states`: those in which the run must have ended. `outputs`, `digests`: unit → SHA-256, wanted and found. `logs`:
    task → bytes. `seen`: how the run looked to somebody who asked again and again, in order.
    """

    run: Json
    states: tuple[str, ...]
    outputs: Mapping[str, str]
    digests: Mapping[str, str]
    events: Sequence[Json]
    attempts: Sequence[Json]
    logs: Mapping[int, bytes]
    seen: Sequence[Json] = ()
    failed: int = 0


@dataclass(frozen=True)
class Evidence:
    """A whole trial.

    `accepted`: ids that the API gave. `engine`: (action, container name, task) as the engine told them. `writes`: what
    passed the fence or was refused, as each process noted it (jobs/adapters/sql_history.py). `left`: what is still there.
    `texts`: everything that was stored or shown; `canaries` must not be in it.
    """

    accepted: Sequence[int]
    runs: Mapping[int, RunEvidence]
    engine: Sequence[tuple[str, str, int]] = ()
    writes: Sequence[Json] = ()
    left: Sequence[str] = ()
    texts: Mapping[str, bytes] = field(default_factory=dict)
    canaries: Sequence[bytes] = ()


def violations(evidence: Evidence) -> list[str]:
    """Give what was not kept, each with the name of the invariant."""
    checks = (ends_once, one_attempt_at_a_time, one_writer_at_a_time, logs_only_grow, one_container_at_a_time,
              logs_are_whole, marks_only_rise, nothing_done_twice, true_verdicts, nothing_left, no_secret_shown)  # fmt: skip
    return [f"{check.__name__}: {text}" for check in checks for text in check(evidence)]


def given_up(evidence: Evidence) -> list[int]:
    """List the runs that were ended as ones that need attention: the third attempt in a row without progress was killed."""
    found = evidence.runs.items()
    return [run for run, one in found if (one.run["reason"] or {}).get("code") == "needs_attention"]


def among(checks: Sequence[str], found: Sequence[str]) -> list[str]:
    """Choose the violations that these checks found."""
    return [text for text in found if text.partition(":")[0] in checks]


def ends_once(evidence: Evidence) -> Iterator[str]:
    """I1: every accepted run is in exactly one final state, and never left one."""
    for run in evidence.accepted:
        found = evidence.runs.get(run)
        if found is None:
            yield f"run {run} was accepted and is not there"
            continue
        if found.run["state"] not in FINAL:
            yield f"run {run} is {found.run['state']}"
        finals = [seen["state"] for seen in found.seen if seen["state"] in FINAL]
        if any(state != found.run["state"] for state in finals):
            yield f"run {run} was shown as {finals} and is {found.run['state']}"
        ends = Counter(e["task"] for e in found.events if e["kind"] == "task" and e["data"]["to"] in FINAL)
        if any(count != 1 for count in ends.values()):
            yield f"run {run}: tasks ended more than once: {dict(ends)}"


def one_attempt_at_a_time(evidence: Evidence) -> Iterator[str]:
    """I2: a task's attempts are numbered 1, 2, 3 …, follow each other, and no event is of a stale one."""
    for run, found in evidence.runs.items():
        tasks: dict[int, list[Json]] = {}
        for attempt in found.attempts:
            tasks.setdefault(attempt["task"], []).append(attempt)
        for task, attempts in tasks.items():
            attempts.sort(key=lambda one: one["attempt"])
            if [one["attempt"] for one in attempts] != list(range(1, len(attempts) + 1)):
                yield f"run {run} task {task}: attempts {[one['attempt'] for one in attempts]}"
            for one, later in pairwise(attempts):
                if one["ended_at"] is None or one["ended_at"] > later["started_at"]:
                    yield f"run {run} task {task}: attempt {one['attempt']} had not ended when the next began"
                if one["log_offset"] > later["log_offset"]:
                    yield f"run {run} task {task}: the log was cut between attempts {one['attempt']} and the next"
        current: dict[int, int] = {}
        for event in found.events:
            task, attempt = event["task"], event["attempt"]
            if event["kind"] == "claim":
                current[task] = attempt
            elif event["kind"] != "refused" and task and attempt and attempt < current.get(task, 0):
                yield f"run {run} task {task}: {event['kind']} of the stale attempt {attempt} was accepted"


def one_writer_at_a_time(evidence: Evidence) -> Iterator[str]:
    """I2, as the processes noted it: what an attempt wrote, it wrote while it was the present one, and none before it later."""
    latest: dict[int, int] = {}
    for write in evidence.writes:
        if not write["accepted"]:
            continue
        task, attempt = write["task"], write["attempt"]
        told = f"task {task}: {write['what']} of attempt {attempt} by process {write['pid']}"
        if (write["current"], write["state"]) != (attempt, "running"):
            yield f"{told} was accepted in attempt {write['current']}, which is {write['state']}"
        elif attempt < latest.get(task, 0):
            yield f"{told} came after one of attempt {latest[task]}"
        latest[task] = max(attempt, latest.get(task, 0))


def logs_only_grow(evidence: Evidence) -> Iterator[str]:
    """I3, as the processes noted it: a log never becomes shorter, and has all in the end that it had before."""
    sizes: dict[int, int] = {}
    for write in evidence.writes:
        if write["accepted"]:
            task = write["task"]
            if write["log_size"] < sizes.get(task, 0):
                yield f"task {task}: the log went from {sizes[task]} to {write['log_size']} bytes"
            sizes[task] = write["log_size"]
    for run, found in evidence.runs.items():
        for task in found.run["tasks"]:
            if task["log_size"] < sizes.get(task["id"], 0):
                yield f"run {run} task {task['id']}: the log had {sizes[task['id']]} bytes and has {task['log_size']}"


def one_container_at_a_time(evidence: Evidence) -> Iterator[str]:
    """I2, as the engine saw it: a task has one running container at most, and each is created and started once."""
    running: dict[int, set[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for action, name, task in evidence.engine:
        counts[action, name] += 1
        alive = running.setdefault(task, set())
        if action == "start":
            alive.add(name)
            if len(alive) > 1:
                yield f"task {task} had {sorted(alive)} running at once"
        elif action in ("die", "destroy"):
            alive.discard(name)
    for (action, name), count in counts.items():
        if action in ("create", "start") and count > 1:
            yield f"{name} had {count} times {action}"


def logs_are_whole(evidence: Evidence) -> Iterator[str]:
    """I3: each container's lines are there as 1, 2, 3 … in one piece, and to the end if it came to its end."""
    owners: dict[bytes, int] = {}
    for run, found in evidence.runs.items():
        tasks = {task["id"]: task for task in found.run["tasks"]}
        for task, log in found.logs.items():
            if len(log) != tasks[task]["log_size"]:
                yield f"run {run} task {task}: {len(log)} bytes of log, {tasks[task]['log_size']} are recorded"
            before, last, ended = b"", 0, b""
            for container, number, text in _LINE.findall(log):
                if container != before:
                    if container in owners:
                        yield f"run {run} task {task}: lines of {container.decode()} are in two places"
                    owners[container] = task
                    before, last = container, 0
                if int(number) != last + 1:
                    yield f"run {run} task {task}: {container.decode()} has line {int(number)} after {last}"
                last, ended = int(number), text
            if tasks[task]["state"] == "done" and last and ended != b"fin":
                yield f"run {run} task {task}: the log ends at {ended.decode()!r}"


def marks_only_rise(evidence: Evidence) -> Iterator[str]:
    """I4: to somebody who looks on, finished units never become fewer, unless a mark was voided on record."""
    for run, found in evidence.runs.items():
        if any(event["kind"] == "void" for event in found.events):
            continue
        for one, later in pairwise(found.seen):
            if later["done"] < one["done"] or later["failed"] < one["failed"]:
                yield f"run {run}: units went from {one} to {later}"


def nothing_done_twice(evidence: Evidence) -> Iterator[str]:
    """A unit is begun again only when the container died that was at it, and an ended one never is."""
    for run, found in evidence.runs.items():
        for task, log in found.logs.items():
            # One of a container is in flight: more beginnings than units and containers together are too many.
            containers = len({name for name, _, _ in _LINE.findall(log)})
            again = begun_again(log)
            if again > max(0, containers - 1):
                yield f"run {run} task {task}: {again} units were begun again in {containers} containers"


def begun_again(log: bytes) -> int:
    """Count how often a unit was begun that had been begun before."""
    beginnings = Counter(text[6:] for _, _, text in _LINE.findall(log) if text.startswith(b"begin "))
    return sum(count - 1 for count in beginnings.values())


def true_verdicts(evidence: Evidence) -> Iterator[str]:
    """A run ends as its branch deserves, with the outputs of an undisturbed one."""
    for run, found in evidence.runs.items():
        state = found.run["state"]
        if state not in found.states:
            yield f"run {run} is {state} {found.run['reason']}, it deserves {' or '.join(found.states)}"
        if state in ("done", "failed") and found.outputs and dict(found.digests) != dict(found.outputs):
            wrong = sorted(unit for unit in found.outputs if found.digests.get(unit) != found.outputs[unit])
            yield f"run {run}: outputs are missing or not the same: {wrong}"
        if state in ("done", "failed") and found.run["units"]["failed"] != found.failed:
            yield f"run {run}: {found.run['units']['failed']} units failed, {found.failed} deserve it"
        if found.run.get("different"):
            yield f"run {run}: {found.run['different']} units differ from their twins"
        if state in ("failed", "errored") and not found.run["reason"]:
            yield f"run {run} is {state} without a reason"


def nothing_left(evidence: Evidence) -> Iterator[str]:
    """I6: no container, volume, directory, database or role is left."""
    yield from evidence.left


def no_secret_shown(evidence: Evidence) -> Iterator[str]:
    """I7: nothing that was stored or shown has a secret in it."""
    for canary in evidence.canaries:
        for place, text in evidence.texts.items():
            if canary in text:
                yield f"a secret is in {place}"
