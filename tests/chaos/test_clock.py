"""B22: a worker whose clock is an hour off. Leases are by the records' clock, and time spans by one that only goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_git import Repository
from fixtures_postgres import end_server, start_server
from fixtures_server import Server, branch_files, until

# Python reads this before anything else. What goes on evenly (`time.monotonic`) is no clock that anybody sets.
SHIFT = """\
import time
_real, _real_ns = time.time, time.time_ns
time.time = lambda: _real() + {off}
time.time_ns = lambda: _real_ns() + {off} * 1_000_000_000
"""
SCRIPT = "work() { for turn in 1 2 3 4; do echo turn $turn; sleep 1; done; }\neach\n"
UNITS = ["c1", "c2"]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, lease: float) -> Iterator[Server]:
    """A server with its records on PostgreSQL, whose own workers are idle: those of the tests do the work."""
    records = start_server("pg-clock")
    with psycopg.connect(records.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE records")
    lab = Repository(tmp_path_factory.mktemp("lab") / "lab.git")
    lab.branch("turns", branch_files(SCRIPT, units=UNITS))
    settings = (f'database_url = "{records.dsn("records")}"',)
    with Server({"lab": lab.path}, lease=lease, slots=1, settings=settings) as one:
        yield one
        one.cancel_all()
    end_server(records)


@pytest.mark.parametrize("off", [3600, -3600])
def test_b22_clock_of_a_worker_is_an_hour_off(server: Server, off: int, tmp_path: Path) -> None:
    own = server.processes("slot")
    for process in own:
        process.suspend()
    log = (tmp_path / "worker.log").open("wb")
    words = [sys.executable, "-m", "jobs.cli", "--config", str(server.config), "worker"]
    (tmp_path / "sitecustomize.py").write_text(SHIFT.format(off=off))
    around = server._environment() | {"PYTHONPATH": str(tmp_path)}
    worker = subprocess.Popen([*words, "--slots", "1"], stdout=log, stderr=log, env=around, start_new_session=True)
    try:
        run = server.submit("lab", "turns")["id"]
        found = server.passes(run)
        assert server.interruptions(run) == []
        assert server.begun(run) == UNITS
        took = (parse(found["finished_at"]) - parse(found["started_at"])) / 1.0
        assert 0 < took < 600, "times are by the records' clock"
        assert {attempt["worker"] for attempt in server.attempts(run)} == {
            slot["name"] for pool in server.get("/capacity")["pools"] for slot in pool["workers"]
            if slot["pid"] not in {process.pid for process in own}
        }  # fmt: skip
    finally:
        worker.terminate()
        worker.wait(60)
        log.close()
        for process in own:
            process.resume()
    until(server._ready, "the server's own workers are back")


def parse(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()
