"""Redis is only a doorbell: away, killed, emptied or silent, nothing that runs notices, and nothing is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from fixtures_git import Repository
from fixtures_server import Server, branch_files, kill, until
from redis import Redis

UNITS = [f"u/{number}" for number in range(4)]
# Each batch's first unit waits for the test and prints; the others end at once.
WAITING = """\
work() { until [ -e /tmp/go ]; do echo "waiting $1"; sleep 0.1; done; }
each
"""
# In leases; the long form also does what people's outages last, in seconds.
OUTAGES = [1.0, 3.0] + ([24.0] if os.environ.get("SEATRIAL_CHAOS_LONG") else [])


def doorbell(server: Server) -> Redis:
    return Redis(unix_socket_path=str(server.home / "valkey" / "valkey.sock"), decode_responses=True)


@contextmanager
def away(server: Server) -> Iterator[None]:
    """Let Redis answer nobody, by any way that `up` does not mend."""
    [valkey] = server.direct("valkey")
    valkey.suspend()
    try:
        yield
    finally:
        valkey.resume()


@pytest.mark.parametrize("leases", OUTAGES)
def test_b09_away_in_mid_run(server: Server, lab: Repository, lease: float, leases: float) -> None:
    lab.branch("waiting", branch_files(WAITING, units=UNITS))
    run = server.submit("lab", "waiting")["id"]
    until(lambda: len(server.workspaces(run)) == 2, "both batches run")
    server.wait_log(run, "waiting ", times=4)
    slots = {process.pid for process in server.processes("slot")}
    with away(server):
        time.sleep(leases * lease)
        size = len(server.http.get(f"/runs/{run}/log").content)
        until(lambda: len(server.http.get(f"/runs/{run}/log").content) > size, "its log grows meanwhile")
        late = server.submit("lab", "waiting")["id"]  # accepted, and rung for later
        server.open_gate(run)
        server.passes(run)
    assert {process.pid for process in server.processes("slot")} == slots
    assert server.interruptions(run) == []
    assert server.begun(run) == UNITS
    server.finish(late)


def _killed(server: Server) -> None:
    [valkey] = server.direct("valkey")
    kill(valkey)
    until(lambda: [new for new in server.direct("valkey") if new.pid != valkey.pid], "Redis is back, and empty")


def _emptied(server: Server) -> None:
    keys = doorbell(server).keys("rq:*")
    assert keys
    doorbell(server).delete(*keys)


@pytest.mark.parametrize("lose", [_killed, _emptied], ids=["b10-killed", "b11-emptied"])
def test_b10_b11_rings_that_are_lost(server: Server, lab: Repository, lose: Callable[[Server], None]) -> None:
    """What is queued rings again, and running work goes on."""
    lab.branch("waiting", branch_files(WAITING, units=UNITS))
    first = server.submit("lab", "waiting")["id"]
    server.wait_log(first, "waiting ", times=4)
    queued = [server.submit("lab", "waiting")["id"] for _ in range(3)]
    lose(server)
    server.open_gate(first)
    server.passes(first)
    assert server.interruptions(first) == []
    for run in queued:
        server.finish(run)
        assert server.begun(run) == UNITS


def test_b04_ring_that_was_heard_by_one_who_died(server: Server, lab: Repository) -> None:
    """Between the ring and the claim nothing is held: the ring is gone with its hearer, and the next one comes soon.

    Redis hands a ring to who listens, and does not see that he is asleep.
    """
    lab.branch("waiting", branch_files(WAITING, units=UNITS))
    slots = server.processes("slot")
    for slot in slots:
        slot.suspend()
    try:
        run = server.submit("lab", "waiting")["id"]
        until(lambda: not doorbell(server).exists("rq:queue:seatrial-local"), "the ring is in their hands")
    finally:
        kill(*slots)
    server.wait_ready()
    server.finish(run)


def test_b13_road_to_redis_that_swallows_everything(server: Server, lab: Repository) -> None:
    """Half-open: who listens is let go, finds work in the records, and hears again when the road is whole."""
    lab.branch("waiting", branch_files(WAITING, units=UNITS))
    slots = {process.pid for process in server.processes("slot")}
    with away(server):
        run = server.submit("lab", "waiting")["id"]
        server.finish(run)  # without one ring
    server.finish(server.submit("lab", "waiting")["id"])
    assert {process.pid for process in server.processes("slot")} == slots
    assert all(psutil.pid_exists(pid) for pid in slots)
