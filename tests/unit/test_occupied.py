"""What keeps a machine busy beside tasks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from jobs.occupied import containers, people
from runner.errors import EngineUnavailable
from runner.model import ContainerState

NOBODY = ("true",)


def container(name: str, status: str = "running", **labels: str) -> ContainerState:
    return ContainerState(name, name, status, None, oom_killed=False, started_at="", labels=labels)


def process(proc: Path, pid: int, command: str, *, tty: int = 0) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} ({command}) S 1 {pid} {pid} {tty} -1 4194560 0 0 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process(tmp_path / "proc", 1, "systemd")
    process(tmp_path / "proc", 40, "agetty", tty=4 << 8 | 64)  # a serial console waits for somebody
    (tmp_path / "proc" / "meminfo").touch()
    return tmp_path / "proc"


def test_pause_containers_and_those_that_ended_do_nothing() -> None:
    found = [container("pause-1", kind="pause"), container("over", "exited"), container("gone", "dead")]
    assert containers(lambda: found) == ()


def test_containers_that_run_or_are_about_to_are_named() -> None:
    found = [container("run-2-t7-e1"), container("door-7", kind="door"), container("new", "created")]
    assert containers(lambda: found) == ("container door-7", "container new", "container run-2-t7-e1")


def test_of_many_a_few_are_named() -> None:
    names = containers(lambda: [container(f"c{number}") for number in range(5)])
    assert names == ("container c0", "container c1", "container c2", "and 2 more")


def test_an_engine_that_does_not_answer_is_busy() -> None:
    def find() -> Iterable[ContainerState]:
        raise EngineUnavailable("The engine is away.")

    assert containers(find) == ("its containers cannot be told: The engine is away.",)


def test_nobody_is_nobody(proc: Path) -> None:
    assert people(NOBODY, proc) == ()


def test_each_login_is_named_once(proc: Path) -> None:
    process(proc, 70, "bash", tty=136 << 8 | 3)
    said = r"mio pts/3 2026-11-20 10:00 (10.0.0.1)\nmio pts/4 2026-11-20 10:01\n"
    assert people(("printf", said), proc) == ("mio is logged in on pts/3", "mio is logged in on pts/4")


def test_terminals_without_a_login_are_shells(proc: Path) -> None:
    process(proc, 71, "tmux: (server)")  # without a terminal of its own
    process(proc, 72, "vim (x)", tty=136 << 8 | 7)
    process(proc, 73, "bash", tty=137 << 8 | 1)
    assert people(NOBODY, proc) == ("a shell is open on pts/257 (bash)", "a shell is open on pts/7 (vim (x))")


def test_a_session_of_session_manager_is_a_shell(proc: Path) -> None:
    process(proc, 74, "ssm-session-wor")
    assert people(NOBODY, proc) == ("a shell is open on session 74 (Session Manager)",)


@pytest.mark.parametrize("who", [("false",), ("/nowhere/who",)])
def test_a_list_of_logins_that_cannot_be_had_is_busy(who: tuple[str, ...], proc: Path) -> None:
    assert people(who, proc) == ("who is logged in cannot be told",)
