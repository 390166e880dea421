"""The supervisor on real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import supervisor as module
from jobs.supervisor import Program, Supervisor

SURROUNDINGS = {"PATH": os.environ["PATH"]}
SLEEP = ["sleep", "600"]
STUBBORN = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]


def until(look: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


class Running:
    """A supervisor in a thread."""

    def __init__(self, *programs: Program, output: Path | None = None) -> None:
        self.output = output.open("ab") if output else None
        self.supervisor = Supervisor(programs, SURROUNDINGS, output=self.output)
        self.thread = threading.Thread(target=self.supervisor.run)

    def __enter__(self) -> Supervisor:
        self.thread.start()
        return self.supervisor

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.thread.join(20)
        if self.output:
            self.output.close()
        assert not self.thread.is_alive()


def test_a_child_that_dies_is_told_of_and_comes_back() -> None:
    deaths: list[str] = []
    with Running(Program("one", SLEEP, died=deaths.append), Program("two", SLEEP)) as supervisor:
        until(lambda: len(supervisor.pids()) == 2)
        before = supervisor.pids()
        os.kill(before["one"], signal.SIGKILL)
        until(lambda: supervisor.pids().get("one") not in (None, before["one"]))
        after = supervisor.pids()
        assert deaths == ["one"]
        assert after["two"] == before["two"]
    assert not any(map(alive, after.values()))


def test_it_is_told_of_a_death_before_the_child_starts_again(tmp_path: Path) -> None:
    story = tmp_path / "story"
    program = Program("one", ["sh", "-c", f"echo start >>{story}; exit 3"], died=lambda _: _append(story, "died"))
    with Running(program):
        until(lambda: story.exists() and story.read_text().count("start") >= 3)
    lines = story.read_text().split()
    assert lines[:5] == ["start", "died", "start", "died", "start"]


def _append(path: Path, word: str) -> None:
    with path.open("a") as file:
        file.write(word + "\n")


def test_a_child_that_dies_at_once_starts_ever_more_seldom() -> None:
    child = module._Child(Program("one", ["false"]), SURROUNDINGS, None)
    child._started = time.monotonic()
    pauses = [child._wait_longer(time.monotonic()) for _ in range(12)]
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == module.LONGEST_PAUSE
    child._started = time.monotonic() - module.STEADY_SECONDS - 1
    assert child._wait_longer(time.monotonic()) == 0.0


def test_a_program_that_is_not_there_does_not_end_the_others() -> None:
    with Running(Program("none", ["/nonexistent/program"]), Program("two", SLEEP)) as supervisor:
        until(lambda: "two" in supervisor.pids())
        time.sleep(0.3)
        assert "none" not in supervisor.pids()
        assert alive(supervisor.pids()["two"])


def test_children_end_before_the_one_that_they_need(tmp_path: Path) -> None:
    story = tmp_path / "story"

    def telling(name: str) -> list[str]:
        return ["sh", "-c", f"trap 'echo {name} >>{story}; exit' TERM; echo up >>{story}; while :; do sleep 0.02; done"]

    programs = [
        Program("store", telling("store"), needed_by_others=True),
        Program("one", telling("one")),
        Program("two", telling("two")),
    ]
    with Running(*programs):
        until(lambda: story.exists() and story.read_text().count("up") == 3)
    lines = [line for line in story.read_text().split() if line != "up"]
    assert (sorted(lines[:2]), lines[2:]) == (["one", "two"], ["store"])


def test_a_child_that_does_not_end_is_killed_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.3)
    begin = 0.0
    with Running(Program("one", STUBBORN)) as supervisor:
        until(supervisor.pids)
        pid = supervisor.pids()["one"]
        time.sleep(0.1)
        begin = time.monotonic()
    assert time.monotonic() - begin < 9  # of the ten seconds that it would have otherwise
    assert not alive(pid)


def test_it_tells_which_children_did_not_end_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.5)
    ready = tmp_path / "ready"

    def trapping(name: str, trap: str) -> Program:
        return Program(name, ["sh", "-c", f"trap '{trap}' TERM; echo up >>{ready}; while :; do sleep 0.02; done"])

    with Running(
        trapping("meek", "exit 0"),
        trapping("broken", "exit 1"),
        trapping("shot", "kill -9 $$"),
        trapping("stubborn", ""),
        Program("deaf", SLEEP),
    ) as supervisor:
        until(lambda: ready.exists() and ready.read_text().count("up") == 4 and "deaf" in supervisor.pids())
    assert supervisor.cut_off == ["stubborn", "deaf"], "our signals ended them"
    assert supervisor.crashed == ["broken", "shot"], "they did so themselves"


class Stubborn:
    """A process that a SIGKILL alone ends, which takes effect at the next look."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name, self.story, self.code = name, story, None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.story.append(f"asked {self.name}")

    def kill(self) -> None:
        self.story.append(f"killed {self.name}")
        self.code = -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            assert timeout is not None, "nothing ends it"
            raise subprocess.TimeoutExpired(self.name, timeout)
        self.story.append(f"ended {self.name}")
        return self.code


def test_all_that_still_live_at_the_end_of_their_time_are_killed_before_one_is_waited_for() -> None:
    story: list[str] = []
    one = Supervisor([Program(name, SLEEP) for name in "abc"], SURROUNDINGS, patience=0.0)
    for child in one._children:
        child.process = Stubborn(child.program.name, story)
    one._end()
    assert story == [f"{what} {name}" for what in ("asked", "killed", "ended") for name in "abc"]
    assert (one.cut_off, one.crashed) == (["a", "b", "c"], [])


def test_one_that_had_died_before_it_was_asked_to_end_crashed(tmp_path: Path) -> None:
    one = Supervisor([Program("one", SLEEP)], SURROUNDINGS)
    child = one._children[0]
    child.start()
    assert child.process is not None
    child.process.terminate()
    assert child.process.wait(30) == -signal.SIGTERM
    one._end()
    assert (one.cut_off, one.crashed) == ([], ["one"])


def test_output_goes_where_it_was_asked_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Running(Program("one", ["sh", "-c", "echo $WORD; echo 2 >&2; sleep 600"], {"WORD": "hello"}), output=out):
        until(lambda: out.exists() and b"2" in out.read_bytes())
    assert out.read_bytes() == b"hello\n2\n"


WHOLE = """
import sys, structlog
from jobs.supervisor import Program, Supervisor
structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
stubborn = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]
meek = ["sh", "-c", "echo up; exec sleep 600"]
one = Supervisor([Program("stubborn", stubborn), Program("meek", meek)], {"PATH": "/usr/bin:/bin"})
one.install_signals()
one.run()
print("over", flush=True)
"""


def whole() -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a supervisor as a process; gives it and the pids of its two children."""
    process = subprocess.Popen([sys.executable, "-c", WHOLE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return process, [int(pid) for pid in children]


def test_the_second_signal_ends_all_at_once() -> None:
    process, children = whole()
    process.send_signal(signal.SIGTERM)
    until(lambda: sum(map(alive, children)) == 1)  # the meek one ended, the stubborn one has ten seconds
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert time.monotonic() - begin < 8
    assert (out, process.returncode) == (b"over\n", 0)
    assert not any(map(alive, children))


def test_children_of_a_killed_supervisor_are_asked_to_end() -> None:
    process, children = whole()
    process.kill()
    process.wait()
    until(lambda: sum(map(alive, children)) == 1)
    assert process.stdout is not None
    process.stdout.close()
    for pid in filter(alive, children):  # the stubborn one ignores it; a slot and a server do not
        os.kill(pid, signal.SIGKILL)


def test_a_child_whose_parent_was_killed_before_it_could_say_so_begins_nothing() -> None:
    no_process = 2**22 + 1
    words = "import signal; from runner.parent import end_with_parent"
    code = f"{words}; end_with_parent({no_process}, signal.SIGTERM); print('begun')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, b"")
