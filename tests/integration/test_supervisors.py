"""Supervisors in each other, as `up` and its workers are, and what their children hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from jobs import cli_server, supervisor
from jobs.instances import is_alive, take_instance
from jobs.supervisor import Program, Supervisor

STUBBORN = """["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]"""
INNER = f"""
import sys, structlog
from jobs.supervisor import Program, Supervisor
structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
one = Supervisor([Program("stubborn", {STUBBORN})], {{"PATH": "/usr/bin:/bin"}}, patience=float(sys.argv[1]))
one.install_signals()
one.run()
print("handed over", flush=True)
"""
OUTER = f"""
import sys, structlog
from jobs.supervisor import Program, Supervisor
structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
inner = [sys.executable, "-c", {INNER!r}, sys.argv[1]]
one = Supervisor([Program("inner", inner)], {{"PATH": "/usr/bin:/bin"}}, patience=float(sys.argv[2]))
one.install_signals()
one.run()
"""


def test_the_outer_one_lets_the_inner_one_end_in_order() -> None:
    """The limit of `up` is longer than that of its workers, which kill what hangs themselves."""
    slots, workers = cli_server.SLOT_SECONDS, cli_server.WORKER_SECONDS
    assert slots + 1.0 < workers <= supervisor.DRAIN_SECONDS
    process = subprocess.Popen([sys.executable, "-c", OUTER, str(slots), str(workers)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"handed over\n", 0)
    assert time.monotonic() - began >= slots


FORKS = """
import os, sys, signal, time, structlog
from jobs.supervisor import Program, Supervisor
structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
def meek(words):
    print("up", os.getpid(), os.environ.get("WORD"), *words, flush=True)
    time.sleep(600)
def stubborn(words):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meek(words)
def ending(words):
    try:
        meek(words)
    finally:
        print("never said: SIGTERM ends it", flush=True)
def exiting(words):
    sys.exit(3)
def breaking(words):
    raise ValueError("broken")
mains = {"meek": meek, "stubborn": stubborn, "ending": ending, "exiting": exiting, "breaking": breaking}
programs = [Program(name, ["sea", name], main=mains[name], environment={"WORD": "hello"}) for name in sys.argv[2:]]
one = Supervisor(programs, {"PATH": "/usr/bin:/bin"}, patience=float(sys.argv[1]))
one.install_signals()
one.run()
print("over", flush=True)
"""

LEAVING = """
import os, weakref
from jobs.supervisor import Program, Supervisor
class Ring: pass
left = []
def died(name):
    ring = Ring()
    ring.itself = ring
    left.append(weakref.ref(ring))
    if len(left) == 3:
        print([one() is None for one in left[:2]])
        supervisor.stop()
program = Program("one", ["sea"], main=lambda words: os._exit(3), died=died)
supervisor = Supervisor([program], {"PATH": "/usr/bin:/bin"})
supervisor.run()
"""


class Forking:
    """A supervisor with forked children, as a process."""

    def __init__(self, patience: float, *children: str) -> None:
        command = [sys.executable, "-c", FORKS, str(patience), *children]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out, self.err = self.process.stdout, self.process.stderr

    def child(self) -> tuple[int, str]:
        """Read that one came up; gives its pid and what else it said."""
        up, pid, *more = self.out.readline().decode().split()
        assert up == "up"
        return int(pid), " ".join(more)

    def end(self) -> str:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return out.decode()


def test_what_a_death_leaves_behind_is_collected_although_forks_share_what_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[True, True]"


def test_a_fork_has_its_own_environment_session_and_name() -> None:
    forking = Forking(5, "meek")
    pid, said = forking.child()
    assert said == "hello sea meek"
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ") == b"sea meek"
    assert forking.end() == "over\n"
    assert not Path(f"/proc/{pid}").exists()


def test_a_fork_that_was_killed_comes_back() -> None:
    forking = Forking(5, "meek")
    first, _ = forking.child()
    os.kill(first, signal.SIGKILL)
    second, said = forking.child()
    assert (second != first, said) == (True, "hello sea meek")
    assert forking.end() == "over\n"


def test_a_fork_that_does_not_end_is_killed_and_one_that_does_ends_by_its_own_signal() -> None:
    forking = Forking(0.3, "stubborn", "ending")
    pids = [forking.child()[0] for _ in range(2)]
    assert forking.end() == "over\n", "neither ran a handler of the supervisor's"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_forks_of_a_killed_supervisor_are_asked_to_end() -> None:
    forking = Forking(5, "meek")
    pid, _ = forking.child()
    forking.process.kill()
    forking.process.communicate(timeout=30)  # until the child has closed its end of the pipe, too
    deadline = time.monotonic() + 20
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it lives on"
            time.sleep(0.01)


def test_how_a_fork_ended_is_known_and_what_broke_is_told() -> None:
    forking = Forking(5, "exiting", "breaking")
    told = ""
    while "child=exiting code=3" not in told.replace("'", "") or "ValueError: broken" not in told:
        line = forking.err.readline().decode()
        assert line, told
        told += line
    assert forking.end() == "over\n"


def test_a_number_is_free_when_the_last_who_holds_it_has_ended(tmp_path: Path) -> None:
    one = take_instance(tmp_path, "local")
    assert (one.number, one.slot(2)) == (1, "local-1-2")
    children = Supervisor([Program("slot", ["sleep", "600"], holds=(one.descriptor,))], {"PATH": os.environ["PATH"]})
    [child] = children._children
    child.start()
    os.close(one.descriptor)  # as when the worker was killed and its slot goes on
    assert is_alive(tmp_path, "local", 1)
    second = take_instance(tmp_path, "local")
    assert second.number == 2
    assert take_instance(tmp_path, "other").number == 1
    assert child.process is not None
    child.process.kill()
    child.process.wait()
    assert not is_alive(tmp_path, "local", 1)
    assert take_instance(tmp_path, "local").number == 1
    os.close(second.descriptor)
