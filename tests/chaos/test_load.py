"""Many at once: every one that was accepted is there, once, and ends; nothing grows."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import docker
import httpx
import psutil
from fixtures_git import Repository
from fixtures_server import PATIENCE, Server, branch_files, kill, until

LONG = bool(os.environ.get("SEATRIAL_CHAOS_LONG"))
TRIVIAL = branch_files("work() { :; }\neach\n", units=["u1"])
CLIENTS = 20
WAIT = 600.0 if LONG else PATIENCE


def submit(server: Server, note: str, count: int, *, priority: bool = False) -> list[int]:
    """Submit so many runs from twenty clients at once; give their ids in the order of the requests."""

    def one(number: int) -> int:
        body = {"project": "lab", "ref": "trivial", "note": note, "priority": number % 3 if priority else 0}
        with httpx.Client(base_url=server.http.base_url, timeout=60.0, trust_env=False) as client:
            answer = client.post("/runs", json=body, headers={"Idempotency-Key": f"{note.replace(' ', '-')}-{number}"})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, range(count)))


def listed(server: Server, note: str) -> list[int]:
    """List the runs with a note, page by page."""
    page = server.get("/runs", text=note, limit=20)
    found = [run["id"] for run in page["runs"]]
    while page["next"] is not None:
        page = server.http.get(server.url + page["next"]).json()
        found += [run["id"] for run in page["runs"]]
    return found


@contextmanager
def counting(server: Server, kind: str = "workspace") -> Iterator[list[int]]:
    """Note how many workspaces run, each time that the engine tells of a start or an end."""
    counts: list[int] = []
    alive: set[str] = set()
    client = docker.from_env()
    filters = {"type": "container", "label": [f"seatrial.installation={server.installation}", f"seatrial.kind={kind}"]}
    stream = client.events(decode=True, filters=filters)

    def look() -> None:
        with suppress(OSError, ValueError, AttributeError):  # closed from outside while it reads
            for event in stream:
                if event["Action"] == "start":
                    alive.add(event["Actor"]["ID"])
                elif event["Action"] == "die":
                    alive.discard(event["Actor"]["ID"])
                counts.append(len(alive))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield counts
    finally:
        stream.close()
        watcher.join(5.0)
        client.close()


def test_a01_a08_many_runs_from_many_clients(server: Server, lab: Repository) -> None:
    """Each is there once; no more run at once than there are slots; the higher priority goes first, then the older."""
    lab.branch("trivial", TRIVIAL)
    count = 1_000 if LONG else 24
    slots = server.processes("slot")
    with counting(server) as counts:
        for slot in slots:
            slot.suspend()  # so that the order is that of the queue, and not of the submissions
        try:
            runs = submit(server, "many at once", count, priority=True)
        finally:
            for slot in slots:
                slot.resume()
        for run in runs:
            server.passes(run, timeout=WAIT)
    assert len(set(runs)) == count
    assert sorted(listed(server, "many at once")) == sorted(runs)
    assert max(counts) == server.slots
    found = sorted((server.run(run) for run in runs), key=lambda run: run["started_at"])
    # Two slots: of two that begin at once either may be noted first.
    order = [(-run["priority"], run["id"]) for run in found]
    late = [place for place, key in enumerate(order) if sorted(order).index(key) < place - server.slots]
    assert not late, f"out of turn: {[order[place] for place in late]}"


def test_a02_one_key_fifty_times_at_once(server: Server, lab: Repository) -> None:
    lab.branch("trivial", TRIVIAL)
    start = threading.Barrier(50)

    def one(_: int) -> httpx.Response:
        start.wait()
        body = {"project": "lab", "ref": "trivial", "note": "fifty at once"}
        with httpx.Client(base_url=server.http.base_url, timeout=60.0, trust_env=False) as client:
            return client.post("/runs", json=body, headers={"Idempotency-Key": "fifty"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(one, range(50)))
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert [answer.status_code for answer in answers].count(201) == 1
    [run] = {answer.json()["id"] for answer in answers}
    assert [found["id"] for found in server.get("/runs", text="fifty at once")["runs"]] == [run]
    server.passes(run)
    again = server.post("/runs", {"project": "lab", "ref": "trivial", "note": "fifty at once"}, key="fifty")
    assert (again.status_code, again.json()["id"]) == (200, run)
    other = server.post("/runs", {"project": "lab", "ref": "trivial", "note": "other"}, key="fifty")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a04_million_lines(server: Server, lab: Repository) -> None:
    """All are kept, in order, and reading them costs the web little memory."""
    lab.branch("lines", branch_files("work() { seq 1000000; }\neach\n", units=["u1"]))
    run = server.submit("lab", "lines")["id"]
    server.passes(run)
    [log] = server.script_logs(run)
    assert log == b"begin u1\n" + b"".join(b"%d\n" % number for number in range(1, 1_000_001)) + b"end u1\n"
    for process in server.processes("web"):
        assert process.memory_info().rss < 200 << 20


def test_a07_many_short_runs_with_kills(server: Server, lab: Repository) -> None:
    """All end well, and the processes that live through it hold no more files and memory than before."""
    lab.branch("trivial", TRIVIAL)
    server.passes(server.submit("lab", "trivial")["id"])
    steady = [*server.processes("supervisor"), *server.processes("sweeper"), *server.processes("web")]
    before = {process.pid: (process.num_fds(), process.memory_info().rss) for process in steady}
    chance = random.Random(7)
    for number, run in enumerate(submit(server, "soak", 200 if LONG else 16)):
        if number % 4 == 1 and (slots := server.processes("slot")):
            kill(chance.choice(slots))
        server.passes(run, timeout=WAIT)
    server.wait_ready()
    server.wait_clean()
    until(
        lambda: grown(steady, before) is None,
        lambda: f"files and memory are given back: {grown(steady, before)}",
        timeout=30.0,
    )


def grown(processes: list[psutil.Process], before: dict[int, tuple[int, int]]) -> str | None:
    """Tell of a process that holds more files than before and a few, or much more memory."""
    for process in processes:
        (files, memory), (files_then, memory_then) = (process.num_fds(), process.memory_info().rss), before[process.pid]
        if files > files_then + 5 or memory > memory_then + (64 << 20):
            words = " ".join(process.cmdline()[-3:])
            return f"{words}: {files_then} → {files} files, {memory_then >> 20} → {memory >> 20} MiB"
    return None
