"""Nothing is left behind: not by runs, however they end, nor by the server's own end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fixtures_git import Repository
from fixtures_postgres import Sample, drop_sample, make_sample
from fixtures_server import Server, branch_files, kill, until

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

    code, _ = server.terminate()
    assert code == 0
    until(lambda: not server.processes(), "nothing of it runs", timeout=15.0)
    until(lambda: not server.containers(), "none of its containers is left", timeout=15.0)
