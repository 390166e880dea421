"""One contract for both engines: Docker's, and the twin in memory."""

from __future__ import annotations

import gc
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from fixtures_bench import BASE
from loop_mounts import unmount

from runner.adapters.docker_engine import DockerEngine
from runner.adapters.engine_memory import MemoryEngine, Program
from runner.errors import (
    Cancelled,
    ContainerForeign,
    ContainerLost,
    DiskFull,
    EngineUnavailable,
    ImageBuildFailed,
    ImageGone,
    ImageUnusable,
    RegistryUnavailable,
)
from runner.model import Container, ContainerState, Mount
from runner.ports import Engine

PROGRAMS = {
    "exit 0": Program(0),
    "exit 3": Program(3),
    "echo out; echo err >&2": Program(0, output=b"out\nerr\n"),
    "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done": Program(None, b"ready\n", on_term=5),
    "trap '' TERM; echo ready; while :; do sleep 0.05; done": Program(None, b"ready\n", on_term=None),
    "head -c 200000000 /dev/zero | tail": Program(0, oom=True),
    "/no/such/program": Program(unusable=True),
}
LISTENS, DEAF = (text for text in PROGRAMS if text.startswith("trap"))


@dataclass
class World:
    engine: Engine
    installation: str

    def container(self, text: str = "exit 0", **values: object) -> Container:
        command = ("sh", "-c", text) if not text.startswith("/") else (text,)
        number = values.pop("task", "1")
        made = Container(
            name=f"seatrial-{self.installation}-{number}",
            image=BASE,
            command=command,
            labels={"installation": self.installation, "task": str(number)},
            user="10001:10001",
            memory=64 << 20,
            pids=32,
            init=False,
        )
        return replace(made, **values)  # type: ignore[arg-type]

    def run(self, text: str = "exit 0", **values: object) -> ContainerState:
        """Run to the end, or until it is ready."""
        made = self.container(text, **values)
        self.engine.create(made)
        self.engine.start(made.name)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            state = self.engine.inspect(made.name)
            assert state is not None
            if not state.running or b"ready" in self.engine.output(made.name):
                return state
            time.sleep(0.02)
        raise AssertionError(f"{text} did not end")


@pytest.fixture(params=["docker", "memory"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield World(MemoryEngine({BASE: "sha256:" + "1" * 64}, programs=PROGRAMS), secrets.token_hex(4))
        return
    yield request.getfixturevalue("docker_world")


@pytest.fixture
def docker_world(docker_engine: DockerEngine) -> Iterator[World]:
    installation = secrets.token_hex(4)
    yield World(docker_engine, installation)
    for state in docker_engine.find(installation=installation):
        docker_engine.remove(state.name)


def test_a_container_goes_from_created_to_exited(world: World) -> None:
    made = world.container("exit 3")
    state = world.engine.create(made)
    assert (state.status, state.exit_code, state.running) == ("created", None, True)
    assert made.labels.items() <= state.labels.items()
    world.engine.start(made.name)
    state = world.run("exit 3")
    assert (state.status, state.exit_code, state.oom_killed, state.running) == ("exited", 3, False, False)


def test_a_second_create_adopts(world: World) -> None:
    first = world.engine.create(world.container())
    again = world.engine.create(world.container())
    assert first.id == again.id


def test_a_foreign_container_under_the_name_is_refused(world: World) -> None:
    made = world.container()
    world.engine.create(replace(made, labels={"installation": world.installation, "task": "another"}))
    with pytest.raises(ContainerForeign, match=made.name):
        world.engine.create(made)


def test_start_twice_is_start_once(world: World) -> None:
    state = world.run(LISTENS)
    world.engine.start(state.name)
    again = world.engine.inspect(state.name)
    assert again is not None
    assert again.started_at == state.started_at


def test_what_is_gone(world: World) -> None:
    name = f"seatrial-{world.installation}-gone"
    assert world.engine.inspect(name) is None
    assert world.engine.output(name) == b""
    with pytest.raises(ContainerLost, match=name):
        world.engine.start(name)
    world.engine.stop(name, grace=0.1)
    world.engine.remove(name)


def test_stop_and_remove_of_one_that_never_started_or_ended(world: World) -> None:
    created = world.engine.create(world.container())
    world.engine.stop(created.name, grace=0.1)
    ended = world.run("exit 3", task="2")
    world.engine.stop(ended.name, grace=0.1)
    state = world.engine.inspect(ended.name)
    assert state is not None
    assert state.exit_code == 3
    for _ in range(2):
        world.engine.remove(created.name)
        world.engine.remove(ended.name)
    assert world.engine.find(installation=world.installation) == []


@pytest.mark.parametrize(("text", "code"), [(LISTENS, 5), (DEAF, 137)])
def test_stop_asks_and_then_kills(world: World, text: str, code: int) -> None:
    state = world.run(text)
    start = time.monotonic()
    world.engine.stop(state.name, grace=1.0)
    after = world.engine.inspect(state.name)
    assert after is not None
    assert (after.running, after.exit_code) == (False, code)
    assert time.monotonic() - start < 9.9  # the engine's own grace is 10 s


def test_remove_kills_what_runs(world: World) -> None:
    state = world.run(DEAF)
    world.engine.remove(state.name)
    assert world.engine.inspect(state.name) is None


def test_memory_beyond_the_limit_is_flagged(world: World) -> None:
    state = world.run("head -c 200000000 /dev/zero | tail")
    until = time.monotonic() + 5
    while not state.oom_killed and time.monotonic() < until:
        time.sleep(0.05)
        found = world.engine.inspect(state.name)
        assert found is not None
        state = found
    assert state.oom_killed


def test_output_is_the_last_that_was_written(world: World) -> None:
    state = world.run("echo out; echo err >&2")
    assert sorted(world.engine.output(state.name).split()) == [b"err", b"out"]
    assert len(world.engine.output(state.name, limit=3)) == 3


def test_find_by_labels(world: World) -> None:
    world.engine.create(world.container(task="1"))
    world.run("exit 0", task="2")

    def names(**labels: str) -> list[str]:
        found = world.engine.find(installation=world.installation, **labels)
        return sorted(state.name.rsplit("-", 1)[1] for state in found)

    assert names() == ["1", "2"]
    assert names(task="2") == ["2"]
    assert names(task="3") == []
    assert world.engine.find(installation="nobody") == []
    [state] = world.engine.find(installation=world.installation, task="2")
    assert state.labels["task"] == "2"
    assert not state.running


def test_many_containers_are_asked_about_over_few_connections(docker_engine: DockerEngine) -> None:
    us = psutil.Process()
    docker_engine.inspect("seatrial-nobody")
    before = us.num_fds()
    for number in range(40):
        assert docker_engine.inspect(f"seatrial-nobody-{number}") is None
    assert us.num_fds() <= before + 10  # one each would be 40


def test_an_image_that_is_missing(world: World) -> None:
    assert world.engine.image("seatrial/none:1") is None
    with pytest.raises(ImageGone, match="seatrial/none:1"):
        world.engine.create(world.container(image="seatrial/none:1"))


def test_a_registry_that_does_not_answer_is_not_the_branchs_fault(world: World, tmp_path: Path) -> None:
    if isinstance(world.engine, MemoryEngine):
        world.engine.registry_up = False
    with pytest.raises(RegistryUnavailable, match="localhost:1/none:1"):
        world.engine.pull("localhost:1/none:1")
    (tmp_path / "Dockerfile").write_text("FROM localhost:1/none:1\n")
    with pytest.raises(RegistryUnavailable, match="localhost:1/none:1"):
        build(world, tmp_path)


def test_an_image_that_is_there_by_name_and_id(world: World) -> None:
    image = world.engine.image(BASE)
    assert image is not None
    assert image.name == BASE
    by_id = world.engine.image(image.id)
    assert by_id is not None
    assert by_id.id == image.id
    assert world.engine.create(world.container(image=image.id)).status == "created"


def test_a_command_that_cannot_be_executed(world: World) -> None:
    made = world.container("/no/such/program")
    world.engine.create(made)
    with pytest.raises(ImageUnusable):
        world.engine.start(made.name)


def test_an_engine_without_room_for_a_container_has_a_full_disk(docker_world: World, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", str(tmp_path)], check=True)
    try:
        made = docker_world.container(mounts=(Mount(tmp_path, "/full", read_only=False),), tmpfs={"/full/below": ""})
        docker_world.engine.create(made)
        with pytest.raises(DiskFull, match="no space left on device"):
            docker_world.engine.start(made.name)
    finally:
        unmount(tmp_path)


def test_a_network_to_join_that_is_not_there_is_not_the_branchs_fault(world: World) -> None:
    made = world.container(network=f"container:seatrial-{world.installation}-pause")

    def begin() -> None:
        world.engine.create(made)
        world.engine.start(made.name)

    with pytest.raises(EngineUnavailable):
        begin()


# ---- builds -----------------------------------------------------------------------------------------------


def build(world: World, context: Path, check: Callable[[], None] = lambda: None) -> tuple[str, bytes]:
    log = bytearray()
    try:
        image = world.engine.build(
            context,
            dockerfile="Dockerfile",
            tag=f"seatrial/test:{world.installation}",
            args={},
            log=log.extend,
            check=check,
        )
    except ImageBuildFailed as error:
        return error.text, bytes(log)
    return image.id, bytes(log)


@pytest.fixture
def built(world: World) -> Iterator[World]:
    yield world
    if isinstance(world.engine, DockerEngine) and world.engine.image(f"seatrial/test:{world.installation}"):
        world.engine._api.remove_image(f"seatrial/test:{world.installation}")


def test_a_build_tells_its_steps(built: World, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 0\n")
    digest, log = build(built, tmp_path)
    assert digest.startswith("sha256:")
    assert re.search(rb"Step 2/\d : RUN exit 0", log)
    image = built.engine.image(f"seatrial/test:{built.installation}")
    assert image is not None
    assert image.id == digest


def test_a_build_that_fails_says_why(built: World, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 3\n")
    text, log = build(built, tmp_path)
    assert text.startswith("The image could not be built: ")
    assert b"exit 3" in log
    assert built.engine.image(f"seatrial/test:{built.installation}") is None


def test_a_build_ends_when_its_check_raises(built: World, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN sleep 120\n")
    start = time.monotonic()

    def check() -> None:
        if time.monotonic() - start > 1.5 or isinstance(built.engine, MemoryEngine):
            raise Cancelled

    with pytest.raises(Cancelled):
        build(built, tmp_path, check)
    assert time.monotonic() - start < 60


# ---- an engine that is away -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK's socket that found nobody
@pytest.mark.parametrize("kind", ["docker", "memory"])
def test_an_engine_that_does_not_answer(kind: str, tmp_path: Path) -> None:
    engine: Engine = MemoryEngine(up=False) if kind == "memory" else DockerEngine(f"unix://{tmp_path}/none.sock")
    world = World(engine, "away")
    made = world.container()
    for call in (
        lambda: engine.create(made),
        lambda: engine.start(made.name),
        lambda: engine.inspect(made.name),
        lambda: engine.stop(made.name, grace=0.1),
        lambda: engine.remove(made.name),
        lambda: engine.find(installation="away"),
        lambda: engine.image(BASE),
        lambda: engine.pull(BASE),
        lambda: engine.output(made.name),
    ):
        with pytest.raises(EngineUnavailable):
            call()
    gc.collect()
