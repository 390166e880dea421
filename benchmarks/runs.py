"""Whole runs, warm and trivial, against the same by shell: `git worktree add` and `docker run --network none`."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, pairs, percentile, ratio_row
from benchmarks.server import Server, commit, serving

IMAGE = "seatrial/base:bookworm"


def shell_floor(root: Path, repository: Path) -> itertools.count[int]:
    """Make the mirror that the shell's worktrees come from."""
    subprocess.run(["git", "clone", "-q", "--mirror", str(repository), str(root / "floor.git")], check=True)
    return itertools.count()


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    with serving(root, slots=2) as server:
        counter = shell_floor(root, server.repository)

        def floor() -> None:
            target = root / f"floor-{next(counter)}"
            git = ["git", "-C", str(root / "floor.git"), "worktree", "add", "-q", "--detach", str(target), "main"]
            subprocess.run(git, check=True, capture_output=True)
            mount = f"{target}:/src"
            subprocess.run(
                ["docker", "run", "--rm", "--network", "none", "-v", mount, "-w", "/src", IMAGE, "true"], check=True
            )

        yield ratio_row(
            "a warm trivial run, submit → done",
            "shell: worktree + docker run --network none",
            pairs(floor, lambda: server.wait(server.submit()), rounds=15, warm=2),
            1.0,
        )
        yield ratio_row(
            "100 of them, 2 slots",
            "xargs -P2 of the same",
            pairs(lambda: _many_floors(root), lambda: _many(server), rounds=3, warm=0),
            0.9,
        )
        yield _followed(server)
        yield from _submits(server)
    yield _two_workers(root)


def _many(server: Server, count: int = 100) -> None:
    runs = [server.submit() for _ in range(count)]
    for run in runs:
        server.wait(run, every=0.05)


def _many_floors(root: Path, count: int = 100) -> None:
    stamp = time.monotonic_ns()
    script = (
        f"git -C {root}/floor.git worktree add -q --detach {root}/many-{stamp}-$0 main 2>/dev/null && "
        f"docker run --rm --network none -v {root}/many-{stamp}-$0:/src -w /src {IMAGE} true; rm -rf {root}/many-{stamp}-$0"
    )
    numbers = "\n".join(map(str, range(count)))
    subprocess.run(["xargs", "-P2", "-n1", "sh", "-c", script], input=numbers, text=True, check=False)


CPU = """version: 1
workspace: {image: 'seatrial/base:bookworm'}
units: [a, b, c, d, e, f, g, h]
run: |
  while read unit; do
    python3 -c 'sum(i * i for i in range(30_000_000))'
    echo x > "$SEATRIAL_OUTPUT/$unit.csv"
    echo "$unit" >> "$SEATRIAL_CHECKPOINT"
  done < "$SEATRIAL_UNITS"
"""


def _two_workers(root: Path) -> Row:
    """Run eight CPU-bound units with one slot and with two, in turns, each on a server of its own."""
    with serving(root / "one", slots=1) as one, serving(root / "two", slots=2) as two:
        for server in (one, two):
            commit(server.repository, "cpu", CPU)
        measured = pairs(
            lambda: one.wait(one.submit("cpu"), every=0.05),
            lambda: two.wait(two.submit("cpu"), every=0.05),
            rounds=3,
        )
    machine, _ = pairs(lambda: processes(1), lambda: processes(2), rounds=3, warm=0)
    detail = f"two processes on this machine, without Seatrial: {machine:.2f}×"
    return ratio_row("a run of CPU-bound units, 2 workers", "the same, 1 worker", measured, 0.6, detail)


def processes(count: int) -> None:
    """Do four units' work with so many processes at once: what the machine can give at this time."""
    work = ";".join(["sum(i * i for i in range(30_000_000))"] * (4 // count))
    running = [subprocess.Popen(["python3", "-c", work]) for _ in range(count)]
    for process in running:
        process.wait()


TALK = """version: 1
workspace: {image: 'seatrial/base:bookworm'}
run: 'for i in $(seq 400); do echo "line $i of a log that people follow"; sleep 0.02; done'
"""


def _followed(server: Server) -> Row:
    """Run a script that prints for eight seconds, with 50 viewers and without any, in turns."""
    commit(server.repository, "talking", TALK)
    ratios = []
    for _ in range(5):
        alone = _seconds(server.wait(server.submit("talking"), every=0.1))
        run = server.submit("talking")
        with ThreadPoolExecutor(50) as pool:
            viewers = [pool.submit(_follow, server, run) for _ in range(50)]
            seconds = _seconds(server.wait(run, every=0.1))
            assert all(b"line 400 of" in viewer.result() for viewer in viewers)
        ratios.append(seconds / alone)
    measured = (statistics.median(ratios), seconds)
    return ratio_row("a run that 50 viewers follow live", "the same, followed by nobody", measured, 1.05)


def _follow(server: Server, run: int) -> bytes:
    """Read a run's stream to its end."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=120)
    connection.request("GET", f"/api/v1/runs/{run}/stream")
    answer = connection.getresponse()
    found = bytearray()
    while b"event: end" not in found[-200:]:
        found += answer.read1()
    connection.close()
    return bytes(found)


def _seconds(run: dict[str, Any]) -> float:
    """Give how long it took from its submission to its end."""
    begun, ended = (datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at"))
    return (ended - begun).total_seconds()


def _submits(server: Server) -> Iterator[Row]:
    """Submit from 20 clients at once, while all slots have work for minutes, and while they take what is submitted."""
    commit(server.repository, "long", CPU.replace("python3 -c 'sum(i * i for i in range(30_000_000))'", "sleep 600"))
    held = [server.submit("long") for _ in range(2)]
    while len([run for run in held if server.client.get(f"/api/v1/runs/{run}").json()["state"] == "running"]) < 2:
        time.sleep(0.1)
    time.sleep(2.0)  # until their units are listed, and both slots have a batch
    waiting = _submit(server)
    for run in held:
        server.client.post(f"/api/v1/runs/{run}/cancel", json={})
    time.sleep(5.0)
    taken = _submit(server)
    p99 = percentile(waiting, 0.99)
    detail = (
        f"p50 {percentile(waiting, 0.5) * 1000:.0f} ms of {len(waiting)}; "
        f"while both slots take them: p50 {percentile(taken, 0.5) * 1000:.0f} ms, p99 {percentile(taken, 0.99) * 1000:.0f} ms"
    )
    yield Row("submit by API, 20 clients", "", f"p99 {p99 * 1000:.0f} ms", "p99 < 100 ms", p99 < 0.1, detail)


def _submit(server: Server) -> list[float]:
    """Submit 20 times 20 runs and give the seconds that each took; they are cancelled afterwards."""
    seconds: list[float] = []
    made: list[int] = []
    lock = threading.Lock()
    body = json.dumps({"project": "bench", "ref": "main"})

    def client() -> None:
        # As lean as a client in Python can be: 20 of them share the cores with what they measure.
        connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        for _ in range(20):
            start = time.perf_counter()
            connection.request("POST", "/api/v1/runs", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = answer.read()
            took = time.perf_counter() - start
            assert answer.status == 201, found
            with lock:
                seconds.append(took)
                made.append(json.loads(found)["id"])
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 400
    for run in made:
        server.client.post(f"/api/v1/runs/{run}/cancel", json={})
    return seconds
