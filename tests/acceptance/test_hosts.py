"""Two hosts, each with a Docker engine: they share PostgreSQL, Valkey and S3, and either goes on for the other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fixtures_engine import PrivateEngine
from fixtures_git import Repository
from fixtures_hosts import Host, Shared
from fixtures_postgres import Sample
from fixtures_s3 import S3Server
from fixtures_server import branch_files, kill, until
from fixtures_store import Valkey

from jobs.adapters.embedded_postgres import EmbeddedPostgres

# The SDK forgets to close a socket that it could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# Two batches of two units; the second of each waits at the gate, in a transaction of its own clone. What a unit prints is
# more than the store of records keeps by itself.
SCRIPT = """\
work() {
    psql -XAqtc "INSERT INTO seen VALUES ('$1') RETURNING name" || exit 1
    seq -f "$1 %06.0f" 2000
    case $1 in */2) gate ;; esac
}
each
"""
DATABASE = "database: {source: sample}\nsetup: [\"psql -XAqtc 'CREATE TABLE seen (name text)'\"]"


@dataclass
class Pair:
    """Two hosts and the database that they share; `units`: of the test's run, a1 a2 b1 b2."""

    first: Host
    second: Host
    sample: Sample
    units: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def module_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def pair_of_hosts(
    postgres18: EmbeddedPostgres,
    module_valkey: Valkey,
    s3_server: S3Server,
    engine_template: Path,
    lab: Repository,
    samples: tuple[Sample, Sample],
) -> Iterator[Pair]:
    """Two hosts that are not started yet. What they share is empty, but for a blessed database."""
    shared, sample = Shared.make(postgres18, module_valkey, s3_server), samples[0]
    with ExitStack() as stack:
        hosts = []
        for name in ("first", "second"):
            engine = PrivateEngine(engine_template)
            stack.callback(engine.remove)
            engine.start()
            hosts.append(Host(name, engine, shared, {"lab": lab.path}, {"sample": sample.dsn}))
            stack.callback(hosts[-1].remove)
        hosts[0].bless("sample")
        yield Pair(*hosts, sample)


@pytest.fixture
def pair(pair_of_hosts: Pair, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both hosts with their engines, of which the first one runs."""
    first, second = pair_of_hosts.first, pair_of_hosts.second
    first.ensure()
    if second.up is not None:
        second.terminate()
    # Of units that were never seen no durations are known, so that they are divided evenly.
    tag = re.sub(r"\W", "-", request.node.name)
    yield replace(pair_of_hosts, units=[f"{tag}/{unit}" for unit in ("a/1", "a/2", "b/1", "b/2")])
    for host in (first, second):
        host.ensure()
    first.cancel_all()
    for host in (first, second):
        host.wait_clean(pair_of_hosts.sample)


def submit(pair: Pair, lab: Repository, *, alone: bool = False) -> int:
    """Start a run on the first host, and the second host when both of its batches wait in their second unit."""
    lab.branch("halves", branch_files(SCRIPT, units=pair.units, more=DATABASE))
    run: int = pair.first.submit("lab", "halves")["id"]
    for unit in pair.units[1::2]:
        pair.first.wait_log(run, f"{unit} 002000\n")
    assert len(pair.first.workspaces(run)) == 2
    if not alone:
        pair.second.start()
    return run


def ended_on_the_second(pair: Pair, run: int) -> None:
    """See that the run passes there, with nothing lost and only the units in flight done again."""
    second, units = pair.second, pair.units
    second.finish(run)
    second.passes(run)
    assert second.begun(run) == sorted([*units, *units[1::2]])
    assert second.hosts(run) == [("first", "interrupted")] * 2 + [("second", "done")] * 2
    assert second.interruptions(run) == ["worker_lost"] * 2
    assert second.digests(run) == {unit: hashlib.sha256(f"{unit},1\n".encode()).hexdigest() for unit in units}
    assert [second.output(run, unit) for unit in units] == [f"{unit},1\n".encode() for unit in units]
    for log, (one, two) in zip(second.script_logs(run), (units[:2], units[2:]), strict=True):
        said = [[f"begin {unit}", unit, *(f"{unit} {n:06}" for n in range(1, 2001))] for unit in (one, two, two)]
        assert log.decode().splitlines() == [*said[0], f"end {one}", *said[1], *said[2], f"end {two}"]


def test_a_host_that_is_lost_in_mid_run(pair: Pair, lab: Repository) -> None:
    """The other ends the run from ledger and object store. Nobody had told the first one that there is another."""
    run = submit(pair, lab)
    pair.first.die()
    until(lambda: len(pair.second.workspaces(run)) == 2, "the other host has both batches", every=0.05)
    ended_on_the_second(pair, run)
    # All that it had on the server of databases goes with the run. What it has on its own disk goes when it is back.
    pair.second.wait_clean(pair.sample)
    assert list((pair.first.home / "executions").iterdir())
    pair.first.ensure()
    pair.first.wait_clean(pair.sample)


def test_a_host_whose_workers_fell_silent_while_its_containers_run_on(pair: Pair, lab: Repository) -> None:
    """What it still runs reaches no database any more; it is removed there as soon as somebody can."""
    run = submit(pair, lab)
    kill(*pair.first.processes())
    until(lambda: len(pair.second.workspaces(run)) == 2, "the other host has both batches")
    assert len(pair.first.workspaces(run)) == 2
    mark = f"_{pair.first.installation}_r{run}_"

    def clones() -> set[str]:
        ours = {name for name in pair.sample.databases() | pair.sample.roles() if mark in name and "_x_" in name}
        return {name.rpartition("_")[2] for name in ours}

    until(lambda: clones() == {"e2"}, "the clones of the first containers are gone")
    pair.first.ensure()
    until(lambda: not pair.first.workspaces(run), "the first host has removed what went on elsewhere")
    assert len(pair.second.workspaces(run)) == 2
    ended_on_the_second(pair, run)


def test_workers_that_died_or_drained_on_a_host_that_lives(pair: Pair, lab: Repository) -> None:
    """Its containers go on, and its own next workers adopt them, though another host has nothing to do."""
    run = submit(pair, lab)
    first = pair.first
    containers = {container.id for container in first.workspaces(run)}
    kill(*first.processes("slot"))
    until(lambda: len(first.hosts(run)) == 4, "both batches are adopted")
    code, _ = first.terminate()
    assert code == 0
    first.start()
    until(lambda: len(first.hosts(run)) == 6, "both batches are adopted again")
    assert {container.id for container in first.workspaces(run)} == containers
    first.finish(run)
    first.passes(run)
    assert first.begun(run) == pair.units
    assert first.hosts(run) == [("first", "interrupted")] * 4 + [("first", "done")] * 2
    assert sorted(first.interruptions(run)) == ["drained"] * 2 + ["worker_lost"] * 2


def test_b15_an_engine_that_is_restarted_under_its_workers(pair: Pair, lab: Repository) -> None:
    """Without live-restore all containers end with it, those that the slots keep ready too: an interruption, no verdict."""
    run = submit(pair, lab, alone=True)
    first = pair.first
    slots = {process.pid for process in first.processes("slot")}
    first.docker_engine.kill()
    first.docker_engine.start()
    until(lambda: len(first.workspaces(run)) == 2, "both batches have new containers")
    first.finish(run)
    first.passes(run)
    assert first.begun(run) == sorted([*pair.units, *pair.units[1::2]])
    assert {code for code in first.interruptions(run) if code != "engine_unavailable"} == {"container_lost"}
    assert "failed" not in first.states(run)
    assert {process.pid for process in first.processes("slot")} == slots


def test_a_host_without_its_engine_takes_no_new_work_and_says_so(pair: Pair, lab: Repository) -> None:
    first = pair.first
    lab.branch("short", branch_files("work() { :; }\neach\n", units=pair.units))
    first.docker_engine.kill()
    until(
        lambda: all(str(worker["shortage"]).startswith("its Docker engine is not ready") for worker in first.workers()),
        "the slots know that there is no engine",
    )
    run = first.submit("lab", "short")["id"]
    assert first.run(run)["waiting"]["code"] == "no_engine"
    first.docker_engine.start()
    first.passes(run)
    assert first.interruptions(run) == []


OPAQUE = """\
version: 1
workspace: {build: {dockerfile: Dockerfile}, limits: {cpus: 1, memory: 128m, pids: 64}}
run: "echo 1 >$SEATRIAL_OUTPUT/one; mkdir $SEATRIAL_OUTPUT/more; seq 9000 >$SEATRIAL_OUTPUT/more/two; \
  echo row-2 >>$SEATRIAL_CHECKPOINT; sleep 0.5; exit 3"
resume: "cat /marker; echo from $SEATRIAL_RESUME_FROM; cd $SEATRIAL_OUTPUT; sha256sum one more/two; echo 3 >three"
"""


def test_a_script_without_units_and_an_image_that_was_built_elsewhere(pair: Pair, lab: Repository) -> None:
    files = {
        "seatrial.yml": OPAQUE.encode(),
        "Dockerfile": b"FROM seatrial/base:bookworm\nCOPY marker /marker\n",
        "marker": b"built from the commit\n",
    }
    lab.branch("opaque", files)
    first, second = pair.first, pair.second
    run = first.submit("lab", "opaque")["id"]
    assert first.wait(run, "failed")["reason"]["code"] == "units_failed"
    first.terminate()
    second.start()
    second.act(run, "resume")
    second.passes(run)
    assert second.hosts(run) == [("first", "failed"), ("second", "done")]
    log = second.http.get(f"/runs/{run}/log").text
    assert "built from the commit\nfrom row-2\n" in log
    assert f"{hashlib.sha256(b'1' + bytes([10])).hexdigest()}  one\n" in log
    numbers = "".join(f"{number}\n" for number in range(1, 9001)).encode()
    assert f"{hashlib.sha256(numbers).hexdigest()}  more/two\n" in log
