"""The Docker engine is killed, restarted, away or deaf in mid-run, or the object store is away: nothing is lost, and no
branch is blamed for it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_bench import GATE, Bench, MemoryRecorder, Outcome
from fixtures_engine import PrivateEngine, SocketRoad
from fixtures_postgres import Proxy
from fixtures_s3 import S3Server

from jobs.adapters.s3_bucket import Bucket
from jobs.adapters.s3_objects import S3Objects
from runner.adapters.docker_engine import DockerEngine
from runner.errors import InfraError
from runner.model import Container, Order, UnitState

# The SDK forgets to close a socket that it could not connect.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

UNITS = tuple("abcdef")
# Tells which units it begins; each takes a quarter of a second, and prints numbered lines.
SCRIPT = """
units: [a, b, c, d, e, f]
run: |
  while read -r u; do
    echo "begin $u"
    for i in $(seq 20); do echo "line $u $i"; sleep 0.01; done
    echo $u > $SEATRIAL_OUTPUT/$u.csv; echo $u >> $SEATRIAL_CHECKPOINT
  done < $SEATRIAL_UNITS
"""


@pytest.fixture(scope="module")
def one_engine(engine_template: Path) -> Iterator[PrivateEngine]:
    engine = PrivateEngine(engine_template)
    yield engine
    engine.remove()


@pytest.fixture
def engine(one_engine: PrivateEngine) -> PrivateEngine:
    """An engine that a test may do anything to. It runs, without live-restore."""
    if one_engine.live_restore:
        one_engine.stop()
        one_engine.live_restore = False
    if not one_engine.runs():
        one_engine.start()
    return one_engine


@pytest.fixture
def bench_on(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Make a bench on an engine at a URL."""
    made: list[DockerEngine] = []

    def make(url: str, *, timeout: float = 60.0) -> Bench:
        engine = DockerEngine(url, timeout=timeout)
        made.append(engine)
        root = tmp_path / str(len(made))
        root.mkdir()
        return Bench(engine, root)

    yield make
    for engine in made:
        engine.close()
    gc.collect()


# The last unit waits for the test.
GATED = SCRIPT.replace('echo "begin $u"', f'[ $u != f ] || {GATE}; echo "begin $u"')


def begun(recorder: MemoryRecorder) -> list[str]:
    return [line.removeprefix("begin ") for line in recorder.said().splitlines() if line.startswith("begin ")]


def whole(recorder: MemoryRecorder) -> bool:
    """Tell whether the log has each line once and in order, for each time that a unit was begun."""
    lines = [line for line in recorder.said().splitlines() if line.startswith(("begin ", "line "))]
    return lines == [
        line for unit in begun(recorder) for line in (f"begin {unit}", *(f"line {unit} {n}" for n in range(1, 21)))
    ]


def interrupted(outcome: Outcome, recorder: MemoryRecorder, *codes: str) -> None:
    """See that an attempt ended by the world's fault, and no unit failed."""
    assert isinstance(outcome.error, InfraError), outcome.why
    assert outcome.code in codes, outcome.why
    assert UnitState.FAILED not in recorder.units.values()


def test_b14_dockerd_killed_with_live_restore(engine: PrivateEngine, bench_on: Callable[..., Bench]) -> None:
    """Nothing happens to the run: it goes on by its files, in one container, without gap or repetition."""
    engine.stop()
    engine.live_restore = True
    engine.start()
    bench = bench_on(engine.url)
    order = bench.order(GATED, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line b 5\n")
    engine.kill()
    running.wait_for("the Docker engine does not answer")
    running.wait_for("line c 5\n")  # while there is no engine
    engine.start()
    bench.open_gate()
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert begun(recorder) == list(UNITS)
    assert whole(recorder)
    assert recorder.executions == {1: ("ended", 0)}
    assert bench.left_over() == []


def to_the_end(bench: Bench, order: Order, recorder: MemoryRecorder, *codes: str) -> list[tuple[str, ...]]:
    """Attempt it until it is done; gives the units that each attempt had to do."""
    had = []
    for _ in range(3):
        order = bench.again(order, recorder)
        had.append(order.units)
        outcome = bench.run(order, recorder)
        if outcome.error is None:
            return had
        interrupted(outcome, recorder, *codes)
    raise AssertionError(f"it never ends: {had}")


@pytest.mark.parametrize("how", [PrivateEngine.kill, PrivateEngine.stop])
def test_b15_dockerd_restarted_without_live_restore(
    engine: PrivateEngine, bench_on: Callable[..., Bench], how: Callable[[PrivateEngine], None]
) -> None:
    """Its containers end with it: an interruption, never a failing branch; the next attempt has the rest to do."""
    bench = bench_on(engine.url)
    order = bench.order(GATED, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line c 5\n")
    how(engine)
    engine.start()
    # Where it asks its containers to end, they may have done so before it is back.
    interrupted(running.end(), recorder, "container_lost", "engine_unavailable")
    attempts = to_the_end(bench, order, recorder, "container_lost")
    assert not {"a", "b"} & set(attempts[0])
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert all(begun(recorder).count(unit) == 1 for unit in "ab")
    assert len(begun(recorder)) <= len(UNITS) + 1, "at most the unit in flight"
    # What an engine on its way down would not remove any more is the sweeper's.
    assert set(bench.left_over()) <= {bench.container()}
    assert not any(state.running for state in bench.engine.find(installation=bench.installation))
    bench.engine.remove(bench.container())


def test_b15_the_host_of_engine_and_container_came_back(engine: PrivateEngine, bench_on: Callable[..., Bench]) -> None:
    bench = bench_on(engine.url)
    order = bench.order(GATED, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line b 5\n")
    recorder.fenced.set()  # its worker went with the host
    running.end()
    engine.lose_power()
    engine.start()
    again = bench.again(order, recorder)
    assert again.live == 1
    attempts = to_the_end(bench, order, recorder, "container_lost")
    assert len(attempts) == 2
    assert "a" not in attempts[1]
    assert begun(recorder).count("a") == 1
    assert bench.left_over() == []


@pytest.mark.parametrize("how", [SocketRoad.cut, SocketRoad.hang])
def test_an_engine_that_is_away_for_a_while(
    engine: PrivateEngine, bench_on: Callable[..., Bench], tmp_path: Path, how: Callable[[SocketRoad], None]
) -> None:
    road = SocketRoad(engine.socket, tmp_path / "road.sock")
    bench = bench_on(road.url, timeout=6.0)
    order = bench.order(SCRIPT, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("line b 5\n")
    how(road)
    running.wait_for("the Docker engine does not answer")
    running.wait_for("line d 5\n")
    road.mend()
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert begun(recorder) == list(UNITS)
    assert whole(recorder)
    assert bench.left_over() == []
    road.close()


def test_an_engine_that_is_away_when_a_task_begins(
    engine: PrivateEngine, bench_on: Callable[..., Bench], tmp_path: Path
) -> None:
    road = SocketRoad(engine.socket, tmp_path / "road.sock")
    bench = bench_on(road.url, timeout=6.0)
    road.cut()
    order = bench.order("run: 'true'")
    recorder = bench.recorder(order)
    interrupted(bench.run(order, recorder), recorder, "engine_unavailable")
    road.mend()
    assert bench.run(bench.again(order, recorder), recorder).code == "done"
    assert bench.left_over() == []
    road.close()


def test_b16_connections_that_are_cut_again_and_again(
    engine: PrivateEngine, bench_on: Callable[..., Bench], tmp_path: Path
) -> None:
    """Nothing is read from a connection that stays: the log is whole, and no end is taken for one that was not."""
    road = SocketRoad(engine.socket, tmp_path / "road.sock")
    bench = bench_on(road.url, timeout=6.0)
    order = bench.order(GATED, UNITS)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    for unit in UNITS[1:-1]:
        running.wait_for(f"line {unit} 1\n")
        road.blink()
    road.break_at(b"GET /v1.41/containers/")  # and in the middle of a question
    assert road.broke.wait(30)
    bench.open_gate()
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert begun(recorder) == list(UNITS)
    assert whole(recorder)
    assert recorder.executions == {1: ("ended", 0)}
    road.close()


@pytest.mark.parametrize("asked", ["create", "start"])
def test_b17_the_answer_to_a_create_or_start_is_lost(
    engine: PrivateEngine, bench_on: Callable[..., Bench], tmp_path: Path, asked: str
) -> None:
    """One container, whoever asks again: under its fixed name there can be no second one."""
    road = SocketRoad(engine.socket, tmp_path / "road.sock")
    bench = bench_on(road.url, timeout=6.0)
    order = bench.order(SCRIPT, UNITS)
    recorder = bench.recorder(order)
    path = "create" if asked == "create" else f"{bench.container()}/start"
    road.lose_answer(f"POST /v1.41/containers/{path}".encode())
    outcome = bench.run(order, recorder)
    interrupted(outcome, recorder, "engine_unavailable")
    assert road.lost.wait(30), "the engine answered, to nobody"
    [state] = bench.engine.find(installation=bench.installation)
    assert state.name == bench.container()
    running = bench.begin(bench.again(order, recorder), recorder)
    running.wait_for("line b 5\n")
    assert len(bench.engine.find(installation=bench.installation)) == 1
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert begun(recorder) == list(UNITS), "each once"
    assert whole(recorder)
    assert bench.left_over() == []
    road.close()


def test_b17_a_create_that_is_asked_twice_gives_the_one_container(
    engine: PrivateEngine, bench_on: Callable[..., Bench], tmp_path: Path
) -> None:
    road = SocketRoad(engine.socket, tmp_path / "road.sock")
    bench = bench_on(road.url, timeout=6.0)
    one = Container(
        name=f"seatrial-{bench.installation}-twice", image="seatrial/base:bookworm", command=("sleep", "60"),
        labels={"installation": bench.installation},
    )  # fmt: skip
    road.lose_answer(b"POST /v1.41/containers/create")
    with pytest.raises(InfraError):
        bench.engine.create(one)
    first = bench.engine.inspect(one.name)
    assert first is not None
    assert bench.engine.create(replace(one, env={})).id == first.id
    assert [state.id for state in bench.engine.find(installation=bench.installation)] == [first.id]
    bench.engine.remove(one.name)
    road.close()


def test_an_object_store_that_is_away_for_a_while(
    engine: PrivateEngine, bench_on: Callable[..., Bench], s3_server: S3Server, s3_bucket: str
) -> None:
    """The container goes on and keeps what it wrote; whoever comes when the store is back takes it, each unit once."""
    with Proxy(s3_server.port) as proxy:
        bench = bench_on(engine.url)
        objects = S3Objects(Bucket(s3_bucket, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
        bench.runtime = replace(bench.runtime, objects=objects)
        order = bench.order(SCRIPT, UNITS)
        recorder = bench.recorder(order)
        running = bench.begin(order, recorder)
        running.wait_for("begin c\n")
        proxy.cut()
        interrupted(running.end(), recorder, "store_unavailable")
        assert bench.engine.inspect(bench.container()) is not None
        again = bench.again(order, recorder)
        interrupted(bench.run(again, recorder), recorder, "store_unavailable")
        proxy.mend()
        again = bench.again(again, recorder)
        assert bench.run(again, recorder).code == "done"
        assert begun(recorder) == list(UNITS), "one container, each unit once"
        assert whole(recorder)
        for unit in UNITS:
            output = recorder.results[unit].output
            assert output is not None
            with objects.open(output.digest) as file:
                assert file.read() == f"{unit}\n".encode()
        assert bench.left_over() == []
