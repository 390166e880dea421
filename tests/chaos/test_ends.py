"""Runs that must end although everything is against it: a cancellation at any moment, and one that kills its workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psutil
import pytest
from fixtures_git import Repository
from fixtures_server import FINAL, IMAGE, Server, branch_files, kill, until

GRACE = 5.0  # that a script has after SIGTERM
MARGIN = 10.0  # for a machine that is loaded
WAITING = "work() { echo waiting; gate; }\neach\n"
DEAF = "trap '' TERM\n" + WAITING


def large(lab: Repository) -> str:
    """Make a branch whose checkout takes seconds: 60,000 files."""
    spec = branch_files(WAITING, units=["u1"])
    blob = lab.blob(b"x")
    folder = lab.tree([("100644", blob, f"f{number:05}".encode()) for number in range(30_000)])
    entries = [("100644", lab.blob(data), name.encode()) for name, data in spec.items()]
    entries += [("40000", folder, b"one"), ("40000", folder, b"two")]
    return lab.commit_tree(lab.tree(entries))


def building(lab: Repository) -> dict[str, bytes]:
    """Give a branch whose image takes minutes to build."""
    files = branch_files(WAITING, units=["u1"])
    text = files["seatrial.yml"].decode().replace(f"image: {IMAGE}", "build: {dockerfile: Dockerfile}")
    dockerfile = f"FROM {IMAGE}\nRUN echo build-began && sleep 300\n"
    return {**files, "seatrial.yml": text.encode(), "Dockerfile": dockerfile.encode()}


@contextmanager
def nothing(_server: Server) -> Iterator[None]:
    yield


@contextmanager
def redis_away(server: Server) -> Iterator[None]:
    [valkey] = server.direct("valkey")
    valkey.suspend()
    try:
        yield
    finally:
        valkey.resume()


@pytest.mark.parametrize(
    ("moment", "around"),
    [
        ("checkout", nothing),
        ("build", nothing),
        ("run", nothing),
        ("deaf", nothing),
        ("run", redis_away),
    ],
    ids=["checkout", "build", "run", "deaf", "run-without-redis"],
)
def test_b23_cancel(server: Server, lab: Repository, moment: str, around: Callable[..., object]) -> None:
    if moment == "checkout":
        lab.set("refs/heads/large", large(lab))
        ref, there = "large", lambda run: any(step["name"] == "checkout" for step in server.run(run)["steps"])
    elif moment == "build":
        lab.branch("building", building(lab))
        ref, there = "building", lambda run: "build-began" in server.http.get(f"/runs/{run}/log").text
    else:
        ref = "waiting" if moment == "run" else "deaf"
        lab.branch(ref, branch_files(WAITING if moment == "run" else DEAF, units=["u1"]))
        there = lambda run: "waiting\n" in server.http.get(f"/runs/{run}/log").text  # noqa: E731
    run = server.submit("lab", ref)["id"]
    until(lambda: there(run), f"the run is at its {moment}", every=0.05)
    with around(server):
        server.act(run, "cancel")
        # Five times what it may take, for a machine that is loaded.
        server.wait(run, "cancelled", timeout=5 * (GRACE + 2.0))
        server.wait_clean()
    lab.branch("fine", branch_files("work() { :; }\neach\n", units=["u1"]))
    server.passes(server.submit("lab", "fine")["id"])


@contextmanager
def silent_repository(_server: Server, lab: Repository) -> Iterator[None]:
    """Let the repository's side of a fetch wait for ever."""
    refs = lab.path / "packed-refs"
    os.mkfifo(refs)
    try:
        yield
    finally:
        refs.unlink()


@contextmanager
def another_fetch(server: Server, _lab: Repository) -> Iterator[None]:
    """Hold the mirror's lock, as somebody does who fetches for minutes."""
    with (server.home / "mirrors/.lab.git.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("slow", [silent_repository, another_fetch], ids=["silent", "another"])
def test_b23_cancel_while_the_mirror_is_slow(
    server: Server, lab: Repository, slow: Callable[[Server, Repository], AbstractContextManager[None]]
) -> None:
    lab.branch("fine", branch_files("work() { :; }\neach\n", units=["u1"]))
    slots = server.processes("slot")
    for slot in slots:
        slot.suspend()
    run = server.submit("lab", "fine")["id"]
    shutil.rmtree(server.home / "mirrors/lab.git")  # as on a host that has none yet
    with slow(server, lab):
        for slot in slots:
            slot.resume()
        until(lambda: any(step["name"] == "checkout" for step in server.run(run)["steps"]), "the run fetches")
        server.act(run, "cancel")
        server.wait(run, "cancelled", timeout=GRACE + 2.0 + MARGIN)
        server.wait_clean()
        until(lambda: not git_processes(server), "no git is left", timeout=MARGIN)
    server.passes(server.submit("lab", "fine")["id"])


def git_processes(server: Server) -> list[int]:
    """List the gits at work on a mirror of the server, by their environments."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("GIT_DIR", "").startswith(str(server.home)):
                found.append(process.pid)
    return found


def test_b24_run_that_kills_its_worker(server: Server, lab: Repository) -> None:
    """It ends after three attempts that led to nothing, and others are served meanwhile."""
    # It prints once and is silent then: a container that goes on printing in other hands is progress.
    lab.branch("poison", branch_files("work() { sleep 600; }\neach\n", units=["u1"]))
    lab.branch("other", branch_files("work() { :; }\neach\n", units=["u1"]))
    run = server.submit("lab", "poison")["id"]
    killed: set[int] = set()

    def poisoned() -> bool:
        """Kill the slot that has the batch, whenever there is one."""
        found = server.run(run)
        batches = {task["id"] for task in found["tasks"] if task["kind"] == "verify" and task["state"] == "running"}
        for pool in server.get("/capacity")["pools"]:
            for worker in pool["workers"]:
                if worker["task"] in batches and worker["pid"] not in killed:
                    killed.add(worker["pid"])
                    with suppress(psutil.NoSuchProcess):
                        kill(psutil.Process(worker["pid"]))
        return found["state"] in FINAL

    other = server.submit("lab", "other")["id"]
    server.wait_log(run, "begin u1")
    until(poisoned, "it is given up")
    found = server.wait(run, "errored")
    assert found["reason"]["code"] == "needs_attention"
    assert "3 times" in found["reason"]["text"]
    assert server.interruptions(run) == ["worker_lost", "worker_lost"]
    assert len(killed) == 3
    server.passes(other)
    server.wait_clean()
    server.wait_ready()
