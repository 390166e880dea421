"""Kill any process of the server in mid-run: the container goes on, and the run ends as if nothing had been."""

from __future__ import annotations

import re
import time

import psutil
import pytest
from docker.models.containers import Container
from fixtures_git import Repository
from fixtures_server import Json, Server, branch_files, kill, until

# The first batch ends at once. The second one prints numbered lines until the test opens its gate, and says how many.
SCRIPT = """\
work() {
    case $1 in *b2) ;; *) return ;; esac
    last=0
    until [ -e /tmp/go ]; do
        seq -f 'tick %.0f' $((last + 1)) $((last + 50))
        last=$((last + 50))
        sleep 0.02
    done
    echo "ticks $last"
}
each
"""


@pytest.fixture
def units(lab: Repository, request: pytest.FixtureRequest) -> list[str]:
    """Units of which no durations are known, so that they are divided evenly; branch `ticking` has them."""
    tag = re.sub(r"\W", "-", request.node.name)
    names = [f"{tag}/{unit}" for unit in ("a1", "a2", "b1", "b2")]
    lab.branch("ticking", branch_files(SCRIPT, units=names))
    return names


def start(server: Server) -> int:
    """Submit, and wait until one batch has ended and the other one prints."""
    run: int = server.submit("lab", "ticking")["id"]
    until(lambda: [t["state"] for t in server.run(run)["tasks"]].count("done") == 2, "the first batch has ended")
    server.wait_log(run, "tick 100\n")
    return run


def holder(server: Server, run: int) -> psutil.Process:
    """Give the process of the slot that does the run's running task."""
    [task] = [task["id"] for task in server.run(run)["tasks"] if task["state"] == "running"]

    def workers() -> list[Json]:
        return [w for pool in server.get("/capacity")["pools"] for w in pool["workers"] if w["task"] == task]

    [worker] = until(workers, "the worker says what it does")
    return psutil.Process(worker["pid"])


def kinds(server: Server, run: int) -> set[str]:
    """Give what kinds of events a run has."""
    return {event["kind"] for event in server.get(f"/runs/{run}/events")["events"]}


def goes_on(server: Server, run: int, container: Container) -> None:
    """See that the run still has the one container from before, and that its log grows."""
    assert [workspace.id for workspace in server.workspaces(run)] == [container.id]
    size = len(server.http.get(f"/runs/{run}/log").content)
    until(lambda: len(server.http.get(f"/runs/{run}/log").content) > size + 1_000, "the log grows")


def ended_well(server: Server, run: int, units: list[str]) -> Json:
    """Open the gate; see that the run passes, nothing was done twice and the log has neither gap nor duplicate."""
    server.open_gate(run)
    found = server.passes(run)
    assert server.begun(run) == units
    first, second = server.script_logs(run)
    a1, a2, b1, b2 = (unit.encode() for unit in units)
    assert first == b"begin %b\nend %b\nbegin %b\nend %b\n" % (a1, a1, a2, a2)
    [last] = re.findall(rb"^ticks (\d+)$", second, re.MULTILINE)
    ticks = b"".join(b"tick %d\n" % number for number in range(1, int(last) + 1))
    assert second == b"begin %b\nend %b\nbegin %b\n" % (b1, b1, b2) + ticks + b"ticks %b\nend %b\n" % (last, b2)
    return found


def test_b01_worker_slot(server: Server, units: list[str]) -> None:
    run = start(server)
    [container] = server.workspaces(run)
    kill(holder(server, run))
    until(lambda: len(server.attempts(run)) >= 4, "somebody adopts the task")
    goes_on(server, run, container)
    found = ended_well(server, run, units)
    [batch] = [task for task in found["tasks"] if task["attempt"] > 1]
    assert batch["attempt"] == 2
    assert server.interruptions(run) == ["worker_lost"]
    server.wait_ready()


def test_b01_worker_with_all_its_slots(server: Server, units: list[str]) -> None:
    run = start(server)
    [container] = server.workspaces(run)
    kill(*server.processes("supervisor"), *server.processes("slot"))  # the lease alone tells
    until(lambda: len(server.attempts(run)) >= 4, "a new worker adopts the task")
    goes_on(server, run, container)
    ended_well(server, run, units)
    assert server.interruptions(run) == ["worker_lost"]
    server.wait_ready()


def test_b02_worker_slot_and_its_container(server: Server, units: list[str]) -> None:
    """The container dies with its slot: the next one goes on at the first unfinished unit, and repeats that one."""
    run = start(server)
    [container] = server.workspaces(run)
    slot = holder(server, run)
    slot.suspend()  # it must not see the container's death
    container.kill()
    kill(slot)
    until(lambda: [new for new in server.workspaces(run) if new.id != container.id], "a new container runs")
    server.open_gate(run)
    server.passes(run)
    *once, last = units
    assert server.begun(run) == sorted([*once, last, last])
    assert server.interruptions(run)[0] == "worker_lost"
    server.wait_ready()


def test_b07_worker_that_hangs_and_comes_back(server: Server, units: list[str]) -> None:
    """A stale attempt can write nothing: what it still wants to say is refused, and the refusal is on record."""
    run = start(server)
    [container] = server.workspaces(run)
    hung = holder(server, run)
    hung.suspend()
    try:
        until(lambda: len(server.attempts(run)) >= 4, "another slot adopts the task")
        goes_on(server, run, container)
    finally:
        hung.resume()
    until(lambda: "refused" in kinds(server, run), "the stale attempt is refused")
    ended_well(server, run, units)
    assert server.interruptions(run) == ["worker_lost"]
    server.wait_ready()


def test_everything_ended_and_started_again(server: Server, units: list[str]) -> None:
    run = start(server)
    [container] = server.workspaces(run)
    code, seconds = server.terminate()
    assert code == 0
    assert seconds < 10.0
    assert not server.processes(), "nothing of it runs"
    until(lambda: [one.id for one in server.containers()] == [container.id], "only its workspace is left", timeout=15.0)
    server.start()
    until(lambda: len(server.attempts(run)) >= 4, "a new worker adopts the task")
    goes_on(server, run, container)
    ended_well(server, run, units)
    assert server.interruptions(run) == ["drained"]


def test_everything_ended_while_a_slot_hangs(server: Server, units: list[str]) -> None:
    """Its worker has to kill it in the end, and hands its task over in its stead: that costs nothing."""
    run = start(server)
    [container] = server.workspaces(run)
    holder(server, run).suspend()
    code, _ = server.terminate()
    assert code == 0
    assert not server.processes(), "nothing of it runs"
    server.start()
    until(lambda: len(server.attempts(run)) >= 4, "a new worker adopts the task")
    goes_on(server, run, container)
    ended_well(server, run, units)
    assert server.interruptions(run) == ["drained"]


def test_b08_nobody_there_for_a_while(server: Server, units: list[str], lease: float) -> None:
    run = start(server)
    [container] = server.workspaces(run)
    assert server.up is not None
    kill(psutil.Process(server.up.pid))  # its children notice, and end
    server.up.wait()
    until(lambda: not server.processes(), "its children have noticed and ended")
    time.sleep(2 * lease)
    server.start()
    until(lambda: len(server.attempts(run)) >= 4, "a new worker adopts the task")
    goes_on(server, run, container)
    ended_well(server, run, units)


@pytest.mark.parametrize("role", ["sweeper", "web", "valkey"])
def test_other_process(server: Server, units: list[str], role: str) -> None:
    run = start(server)
    [container] = server.workspaces(run)
    [old] = server.direct(role)
    kill(old)  # of the web only the main process: its worker has to end by itself
    until(lambda: [new for new in server.direct(role) if new.pid != old.pid], f"{role} is back")
    server.wait_ready()
    goes_on(server, run, container)
    ended_well(server, run, units)
    assert server.interruptions(run) == []
