"""Seeing that a container's processes are gone, before its engine says so."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_bench import BASE

from runner.adapters.docker_engine import DockerEngine
from runner.adapters.process_watch import ProcessWatch
from runner.model import Container

# The first process ends when it is told to; what it left behind would write on for a minute.
LEAVES = "(while :; do echo x >>/tmp/x; sleep 0.01; done) & until [ -e /tmp/go ]; do sleep 0.02; done; exit 3"


def watched() -> int:
    """Count the processes that this one has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += "pidfd" in os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
def container(docker_engine: DockerEngine) -> Iterator[Container]:
    name = f"seatrial-watch-{secrets.token_hex(4)}"
    labels = {"installation": name, "kind": "workspace"}
    made = Container(name, BASE, ("sh", "-c", LEAVES), labels, tmpfs={"/tmp": "mode=1777"}, init=False)
    yield made
    docker_engine.remove(name)


def test_the_end_of_all_processes_is_seen_at_once(docker_engine: DockerEngine, container: Container) -> None:
    docker_engine.create(container)
    created = docker_engine.inspect(container.name)
    assert created is not None
    assert docker_engine.watch(created) is None, "it has no process yet"
    docker_engine.start(container.name)
    running = docker_engine.inspect(container.name)
    assert running is not None
    before = watched()
    watch = docker_engine.watch(running)
    assert watch is not None
    assert not watch.gone(0)
    assert watched() > before
    Path(f"/proc/{running.pid}/root/tmp/go").touch()
    assert watch.gone(20)
    with pytest.raises(ProcessLookupError):
        ProcessWatch.open(running.pid or 0, running.id)
    late = docker_engine.watch(running)
    assert late is not None
    assert late.gone(0), "one that ended before anybody looked"
    until = time.monotonic() + 20
    while (ended := docker_engine.inspect(container.name)) is None or ended.running:
        assert time.monotonic() < until
    assert (ended.exit_code, ended.pid) == (3, None)
    after = docker_engine.watch(ended)
    assert after is not None
    assert after.gone(0)
    for one in (watch, late, after):
        one.close()
        one.close()


def test_a_process_that_is_not_the_containers_proves_nothing(docker_engine: DockerEngine, container: Container) -> None:
    docker_engine.create(container)
    docker_engine.start(container.name)
    running = docker_engine.inspect(container.name)
    assert running is not None
    before = watched()
    assert docker_engine.watch(replace(running, pid=os.getpid())) is None
    assert watched() == before
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = DockerEngine()
    assert other.watch(replace(running, pid=gone.pid)) is None, "it may have a process table of its own"
    other.close()


def test_an_ended_process_that_nobody_waited_for_is_none() -> None:
    before = watched()
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        ProcessWatch.open(ended.pid, "any")
    assert watched() == before
    ended.wait()
