"""The verification database drops, dies or hangs in mid-run: that is never the branch's fault, and the run ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import docker
import psutil
import pytest
from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample, end_server, make_sample, start_server
from fixtures_server import Server, branch_files, kill, until

from jobs.adapters.embedded_postgres import EmbeddedPostgres

DATABASE = "database: {source: sample}"
# Each unit holds one session for most of a second.
QUERIES = """\
work() { psql -XAtc "SELECT pg_sleep(0.6)" -c "SELECT '$1'" >/dev/null || exit 1; }
each
"""
UNITS = [f"q/{number}" for number in range(12)]


def test_connections_that_are_cut_again_and_again(server: Server, lab: Repository, link: Proxy, lease: float) -> None:
    """The seed of all this: a tunnel that drops. What is finished stays finished, and the run ends as if it had not."""
    units = [f"q/{number}" for number in range(int(8 * max(1.5, lease)))]  # some leases of work for two slots
    lab.branch("queries", branch_files(QUERIES, units=units, more=DATABASE))
    calm = server.submit("lab", "queries")["id"]
    server.passes(calm)
    run = server.submit("lab", "queries")["id"]
    over = threading.Event()

    def cut() -> None:
        finished = 0
        while not over.wait(lease):
            done = server.run(run)["units"]["done"]
            if done > finished:  # three cuts without any progress would end the run, and rightly
                link.blink()
                finished = done

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        server.passes(run)
    finally:
        over.set()
        cutter.join()
    assert server.interruptions(run)
    assert set(server.interruptions(run)) <= {"database_lost", "database_unavailable"}
    assert "failed" not in server.states(run)
    assert server.digests(run) == server.digests(calm)
    repeated = len(server.begun(run)) - len(units)
    assert repeated <= len(server.interruptions(run)), "one unit of each container at most"


@pytest.fixture
def own(lab: Repository, lease: float) -> Iterator[tuple[Server, EmbeddedPostgres]]:
    """A server whose verification database is on a PostgreSQL server that may be killed."""
    postgres = start_server("pg-killed")
    sample: Sample = make_sample(postgres)
    with Server({"lab": lab.path}, {"sample": sample.dsn}, lease=lease) as server:
        server.bless("sample")
        yield server, postgres
        server.cancel_all()
    end_server(postgres)


def test_b19_server_killed_in_mid_unit(own: tuple[Server, EmbeddedPostgres], lab: Repository) -> None:
    server, postgres = own
    lab.branch("queries", branch_files(QUERIES, units=UNITS, more=DATABASE))
    run = server.submit("lab", "queries")["id"]
    until(lambda: server.run(run)["units"]["done"] >= 2, "some units are done")
    main = psutil.Process(postgres.pid())
    kill(main, *main.children(recursive=True))
    until(lambda: server.interruptions(run), "the run is interrupted")
    postgres.start()
    found = server.passes(run)
    assert set(server.interruptions(run)) <= {"database_lost", "database_unavailable"}
    assert "failed" not in server.states(run)
    assert found["units"] == {"total": len(UNITS), "done": len(UNITS), "failed": 0}
    server.wait_clean()


def test_b20_transaction_of_an_execution_that_is_gone(server: Server, lab: Repository) -> None:
    """On a database that all executions of a leg share, an old one's open transaction ends before the next begins."""
    script = """\
work() {
    if [ $SEATRIAL_ATTEMPT = 1 ]; then
        psql -Xq -c 'BEGIN' -c 'LOCK TABLE account' -c 'SELECT pg_sleep(1000)' &
        until psql -XAtc "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'" | grep -q '[1-9]'; do :; done
        echo locked
        gate
    fi
    psql -Xqc "SET lock_timeout = '20s'" -c 'INSERT INTO account VALUES (0, $$new$$)' || exit 1
}
each
"""
    more = "database: {source: sample, clone_per: leg}"
    lab.branch("locking", branch_files(script, units=["l1"], more=more))
    run = server.submit("lab", "locking")["id"]
    server.wait_log(run, "locked\n")
    [workspace] = server.workspaces(run)
    [gateway] = server.containers(door=workspace.name, part="gateway")
    gateway.pause()  # it hangs, and so the server does not hear of its clients' end
    try:
        workspace.kill()
        server.passes(run)
    finally:
        with suppress(docker.errors.APIError):  # it is gone
            gateway.unpause()
    server.wait_clean()
