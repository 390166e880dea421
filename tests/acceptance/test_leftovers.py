"""Nothing is left behind: not by runs, however they end, nor by the server's own end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from fixtures_git import Repository
from fixtures_postgres import Sample, drop_sample, make_sample
from fixtures_server import Server, alive, branch_files, kill, until

from jobs.adapters.embedded_postgres import EmbeddedPostgres

# One batch with TCP door, one unit that can be made to fail or to wait.
SCRIPT = """\
work() {
    psql -XAtc "CREATE TABLE scratch AS SELECT 1" >/dev/null || exit 1
    case $1 in
    waits) gate ;;
    fails) exit 3 ;;
    esac
}
each
"""
DATABASE = "database: {source: sample, tcp: true}\nsetup: [\"psql -c 'CREATE TABLE prepared (id int)'\"]"


@pytest.fixture
def sample(postgres18: EmbeddedPostgres) -> Iterator[Sample]:
    made = make_sample(postgres18)
    yield made
    drop_sample(made)


@pytest.fixture
def server(lab: Repository, sample: Sample) -> Iterator[Server]:
    with Server({"lab": lab.path}, {"sample": sample.dsn}) as made:
        made.bless("sample")
        yield made


def test_nothing_is_left(server: Server, sample: Sample, lab: Repository) -> None:
    bases = {name for name in sample.databases() if name.startswith("seatrial_base_")}
    runs = {}
    for unit in ("passes", "fails", "waits"):
        lab.branch(unit, branch_files(SCRIPT, units=[unit], more=DATABASE))
        runs[unit] = server.submit("lab", unit)["id"]
    server.passes(runs["passes"])
    assert server.wait(runs["fails"], "failed")["reason"]["code"] == "units_failed"

    server.wait_log(runs["waits"], "begin waits\n")
    assert server.left(sample)
    server.act(runs["waits"], "cancel")
    server.wait(runs["waits"], "cancelled")

    killed = server.submit("lab", "waits")["id"]
    server.wait_log(killed, "begin waits\n")
    kill(*server.processes("supervisor"), *server.processes("slot"), *server.processes("sweeper"))
    server.wait_ready()
    server.finish(killed)

    server.wait_clean(sample)
    until(lambda: len(server.containers(kind="pause")) == server.slots, "each slot has one pause container")
    assert {name for name in sample.databases() if name.startswith("seatrial_base_")} == bases

    code, seconds = server.terminate()
    assert code == 0
    assert seconds < 10.0
    assert not server.processes(), "nothing of it runs"
    until(lambda: not server.containers(), "none of its containers is left", timeout=15.0)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_comparison_that_is_under_way_outlives_no_server(lab: Repository, sign: signal.Signals) -> None:
    """It stands for one that takes minutes: the child is stopped at once when it has begun."""
    large = 'mkdir -p "$SEATRIAL_OUTPUT"; { echo id,n; seq -f %.0f,AMOUNT 300000; } >"$SEATRIAL_OUTPUT/u1.csv"\n'
    for name, amount in (("large-a", "1"), ("large-b", "2")):
        script = large.replace("AMOUNT", amount) + 'echo u1 >>"$SEATRIAL_CHECKPOINT"\n'
        lab.branch(name, branch_files(script, units=["u1"]))
    with Server({"lab": lab.path}) as server:
        run = server.submit("lab", "large-b", baseline="large-a")["id"]
        child = until(lambda: comparing(server), "a child compares", every=0.02)
        child.suspend()
        assert server.run(run)["state"] == "running"
        if sign == signal.SIGKILL:
            [comparer] = server.direct("comparer")
            kill(comparer)
            until(lambda: not alive(child), "it ends with its comparer", timeout=20.0)
        else:
            code, seconds = server.terminate()
            assert code == 0
            assert seconds < 10.0
            assert not server.processes(), "nothing of it runs"
            server.start()
        assert server.wait(run, "done")["verdict"] == "different"
        differing = server.get(f"/runs/{run}/diffs/u1")
        assert differing["rows"]["changed"] == 300_000


def comparing(server: Server) -> psutil.Process | None:
    """Find the process that compares."""
    for process in server.processes():
        with suppress(psutil.NoSuchProcess):
            if "jobs.compare_child" in process.cmdline():
                return process
    return None
