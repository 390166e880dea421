"""A whole server whose records are in PostgreSQL: its restart in mid-run, and workers that drain."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_git import Repository
from fixtures_postgres import end_server, start_server
from fixtures_server import Server, branch_files, until

from jobs.adapters.embedded_postgres import EmbeddedPostgres

UNITS = ["one", "two", "three", "four"]
# The first unit of each batch ends at once; before the second one the batch waits, and prints.
SCRIPT = """\
count=0
work() {
    count=$((count + 1))
    [ $count = 2 ] || return 0
    until [ -e /tmp/go ]; do echo "waiting $1"; sleep 0.2; done
}
each
"""


class RecordsServer(Server):
    """A server with its records on a PostgreSQL server of its own."""

    def __init__(self, records: EmbeddedPostgres, projects: dict[str, Path]) -> None:
        super().__init__(projects)
        self.records = records
        text = self.config.read_text().replace(
            'home = "server"', f'home = "server"\ndatabase_url = "{records.dsn("records")}"'
        )
        self.config.write_text(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordsServer]:
    records = start_server("pg-records")
    with psycopg.connect(records.dsn(), autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE records")
    lab = Repository(tmp_path_factory.mktemp("lab") / "lab.git")
    lab.branch("waiting", branch_files(SCRIPT, units=UNITS))
    with RecordsServer(records, {"lab": lab.path}) as one:
        yield one
    end_server(records)


def halfway(server: Server) -> int:
    """Submit, and wait until each batch has done its first unit and waits in its second."""
    run: int = server.submit("lab", "waiting")["id"]
    until(lambda: server.run(run)["units"]["done"] == 2, "two units are done")
    server.wait_log(run, "waiting ", times=4)
    return run


def test_a_restart_of_the_records_in_mid_run_costs_nothing(server: RecordsServer) -> None:
    run = halfway(server)
    pids = {process.pid for process in server.processes("slot")}
    containers = {container.id for container in server.workspaces(run)}
    server.records.stop(immediate=True)
    time.sleep(6.0)  # longer than a lease
    assert {container.id for container in server.workspaces(run)} == containers
    server.records.start()
    found = server.finish(run)
    assert (found["verdict"], found["attempts"], found["units"]["done"]) == ("passed", 3, 4)
    assert server.interruptions(run) == []
    assert server.begun(run) == sorted(UNITS)
    assert {process.pid for process in server.processes("slot")} == pids


def test_drained_workers_leave_containers_and_the_next_ones_go_on(server: RecordsServer) -> None:
    run = halfway(server)
    containers = {container.id for container in server.workspaces(run)}
    began = time.monotonic()
    for process in server.processes("slot"):
        process.send_signal(signal.SIGTERM)
    # Batches follow measured durations, so a short one may have ended before the drain.
    until(lambda: len(server.interruptions(run)) == len(containers), "all attempts are handed over")
    assert time.monotonic() - began < 40
    assert set(server.interruptions(run)) == {"drained"}
    server.wait(run, "running")
    assert {container.id for container in server.workspaces(run)} == containers
    found = server.finish(run)
    assert (found["verdict"], found["attempts"]) == ("passed", 3 + len(containers))
    assert server.begun(run) == sorted(UNITS)


def test_idle_workers_drain_within_two_seconds(server: RecordsServer) -> None:
    server.wait_ready()
    before = server.processes("slot")
    began = time.monotonic()
    for process in before:
        process.send_signal(signal.SIGTERM)
    until(lambda: not any(process.is_running() and process.status() != "zombie" for process in before), "they ended")
    assert time.monotonic() - began < 15
    server.wait_ready()
