"""A gateway that is killed, removed or started anew from outside: an interruption of the world's, never a verdict."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from fixtures_bench import Bench
from fixtures_postgres import drop_sample, make_sample

from jobs.adapters.embedded_postgres import EmbeddedPostgres
from runner.adapters.postgres_clone import PostgresSource
from runner.door import GatewayDoor
from runner.model import Container, Order, Template, UnitState

REPOSITORY = Path(__file__).parents[2]
# The first unit is finished; the second one is in the middle of a query when the gateway goes.
ASKING = """
database: {source: books%s}
units: [a, b, c]
run: |
  set -u
  while read -r u; do
    psql -Atc 'SELECT count(*) FROM account' >$SEATRIAL_OUTPUT/$u.csv || exit 3
    if [ $u = b ] && [ "$SEATRIAL_ATTEMPT" = 1 ]; then
      psql -At -c "SELECT 'asking for b'" -c 'SELECT pg_sleep(60)' || { %s; }
    fi
    echo $u >>$SEATRIAL_CHECKPOINT
  done <$SEATRIAL_UNITS
"""
ENDS = "exit 3"
MARKS = 'printf "b\\tfailed\\tno database\\n" >>$SEATRIAL_CHECKPOINT; sleep 60'
MARKS_AND_ENDS = 'printf "b\\tfailed\\tno database\\n" >>$SEATRIAL_CHECKPOINT; exit 0'


class Harbour:
    """A bench whose executions have real clones and doors."""

    def __init__(self, bench: Bench, source: PostgresSource, doors: Path) -> None:
        base = source.bless()
        self.template = Template(base.source, base.database, base.owner, base.data_id)
        self.bench, self.source = bench, source
        door = GatewayDoor(bench.engine, doors, labels={"installation": bench.installation})
        bench.runtime = replace(bench.runtime, door=door, databases=lambda _: source)

    def order(self, fault: str, *, tcp: bool = False) -> Order:
        spec = ASKING % (", tcp: true" if tcp else "", fault)
        return self.bench.order(spec, ("a", "b", "c"), template=self.template)


@pytest.fixture
def harbour(bench: Bench, postgres18: EmbeddedPostgres) -> Iterator[Harbour]:
    subprocess.run([REPOSITORY / "docker" / "gateway-image.sh"], check=True, capture_output=True)
    doors = Path(tempfile.mkdtemp(prefix="seatrial-doors-"))
    sample = make_sample(postgres18)
    source = PostgresSource("books", sample.dsn, installation=bench.installation, connection_limit=5)
    yield Harbour(bench, source, doors)
    for state in bench.engine.find(installation=bench.installation):
        bench.engine.remove(state.name)
    source.sweep(set)
    drop_sample(sample)
    shutil.rmtree(doors)


def spoil(harbour: Harbour, fault: str, *commands: list[str], part: str = "door") -> str:
    """Run until the second unit asks, do something to the gateway, and give why the attempt ended; then run the rest."""
    bench, order = harbour.bench, harbour.order(fault, tcp=part == "relay")
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("asking for b\n")
    for command in commands:  # a restart may find the container removed when it has ended
        subprocess.run(["docker", *command, f"{bench.container()}-{part}"], check=False, capture_output=True)
    outcome = running.end()
    assert outcome.code == "database_lost", (outcome.why, recorder.said())
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.TODO, "c": UnitState.TODO}
    assert bench.left_over() == []
    again = bench.run(bench.again(order, recorder), recorder)
    assert again.code == "done", (again.why, recorder.said())
    assert set(recorder.units.values()) == {UnitState.DONE}
    return outcome.why


@pytest.mark.parametrize("fault", [ENDS, MARKS, MARKS_AND_ENDS], ids=["ends", "marks", "marks and ends"])
@pytest.mark.parametrize("how", ["kill", "rm -f", "restart -t 0"])
def test_a_gateway_that_ended_from_outside_is_no_fault_of_the_branch(harbour: Harbour, fault: str, how: str) -> None:
    assert "gateway was ended from outside" in spoil(harbour, fault, how.split())


@pytest.mark.parametrize("fault", [ENDS, MARKS_AND_ENDS], ids=["ends", "marks and ends"])
def test_a_database_that_was_dropped_from_outside_is_no_fault_of_the_branch(
    harbour: Harbour, postgres18: EmbeddedPostgres, fault: str
) -> None:
    bench, order = harbour.bench, harbour.order(fault)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("asking for b\n")
    with psycopg.connect(postgres18.dsn(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {order.execution_database(1)} WITH (FORCE)")
    outcome = running.end()
    assert outcome.code == "database_lost", (outcome.why, recorder.said())
    assert "was dropped from outside" in outcome.why
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.TODO, "c": UnitState.TODO}
    again = bench.run(bench.again(order, recorder), recorder)
    assert again.code == "done", (again.why, recorder.said())


def test_a_branch_that_fails_while_its_gateway_lives_has_failed(harbour: Harbour) -> None:
    order = harbour.order("true")
    order = replace(order, spec=order.spec.model_copy(update={"run": "psql -Atc 'SELECT 1/0'; exit 3"}))
    recorder = harbour.bench.recorder(order)
    outcome = harbour.bench.run(order, recorder)
    assert outcome.code == "units_failed"
    assert set(recorder.units.values()) == {UnitState.FAILED}


def test_a_relay_that_ended_from_outside_is_no_fault_of_the_branch(harbour: Harbour) -> None:
    bench = harbour.bench
    pause = Container(
        name=f"seatrial-{bench.installation}-pause",
        image="seatrial/gateway:1",
        command=("sleep", "infinity"),
        labels={"installation": f"{bench.installation}-pause"},
        user="65534:65534",
    )
    bench.engine.create(pause)
    bench.engine.start(pause.name)
    try:
        bench.runtime = replace(bench.runtime, network=f"container:{pause.name}")
        assert "gateway was ended from outside" in spoil(harbour, ENDS, ["kill"], part="relay")
    finally:
        bench.engine.remove(pause.name)
