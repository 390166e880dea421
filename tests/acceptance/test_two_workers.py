"""Two workers of one pool on one host: each has its own slots, and the death of one leaves the other's tasks alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fixtures_git import Repository
from fixtures_server import Server, alive, branch_files, kill, until

UNITS = ["one", "two", "three", "four"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    lab = Repository(tmp_path_factory.mktemp("lab") / "lab.git")
    lab.branch("waiting", branch_files("work() { gate; }\neach\n", units=UNITS))
    with Server({"lab": lab.path}) as one:
        yield one


def workers(server: Server) -> dict[int, str]:
    """Give the slots that the API shows, by their process ids."""
    [pool] = server.get("/capacity")["pools"]
    return {worker["pid"]: worker["name"] for worker in pool["workers"]}


def pauses_of(server: Server) -> set[str]:
    """Give the pause containers of all workers."""
    return {str(one.id) for one in server.containers(kind="pause")}


@contextmanager
def another_worker(server: Server) -> Iterator[psutil.Process]:
    """Start `seatrial worker` beside the server's own, and wait until its slots are there."""
    with server.log.open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "--config", str(server.config), "worker", "--pool", "local"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=server._environment(), start_new_session=True,
        )  # fmt: skip
    process = psutil.Process(started.pid)

    def ready() -> bool:
        slots = {slot.pid for slot in process.children()}
        return len(slots) == server.slots and slots <= set(workers(server))

    try:
        until(ready, "the other worker's slots are there")
        yield process
    finally:
        started.terminate()
        started.wait(30)


def test_the_death_of_one_leaves_the_tasks_of_the_other_alone(server: Server) -> None:
    with another_worker(server) as other:
        slots = other.children()
        theirs = {workers(server)[slot.pid] for slot in slots}
        assert len(set(workers(server).values())) == 2 * server.slots
        run = server.submit("lab", "waiting")["id"]
        until(lambda: len(server.workspaces(run)) == len(UNITS), "each slot has a batch")
        held = {attempt["task"]: attempt["worker"] for attempt in server.attempts(run)}
        of_others = {task for task, worker in held.items() if worker not in theirs}
        pauses = pauses_of(server)
        assert len(pauses) == 2 * server.slots

        kill(other, *slots)
        until(lambda: len(server.interruptions(run)) == len(theirs), "what the dead ones held is interrupted")
        until(lambda: not any(map(alive, slots)), "they are dead")
    with another_worker(server):
        # The same names again: what the dead one left was taken away by its successor.
        until(
            lambda: len(now := pauses_of(server)) == 2 * server.slots and len(now & pauses) == server.slots,
            "the pause containers are those of the one that lives, and the successor's",
        )
        until(lambda: set(workers(server).values()) >= theirs, "the successor has its names")
        server.finish(run)
        again = [attempt["task"] for attempt in server.attempts(run) if attempt["attempt"] > 1]
        assert again
        assert not set(again) & of_others, "a task of the living worker was interrupted"
    server.wait_clean()


def test_a_slot_that_hangs_is_killed_by_its_worker_and_not_the_worker_by_up(server: Server) -> None:
    [hung, *_] = server.processes("slot")
    os.kill(hung.pid, signal.SIGSTOP)
    mark = server.log.stat().st_size
    began = time.monotonic()
    code, _ = server.terminate()
    assert code == 0
    assert time.monotonic() - began < 28
    killed = [line for line in _since(server.log, mark) if "child.killed" in line]
    assert len(killed) == 1, killed
    assert "worker-local" not in killed[0]
    assert not server.containers(), "its worker removes what it left"
    server.start()


def _since(path: Path, mark: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(mark)
        return file.read().decode("utf-8", "replace").splitlines()
