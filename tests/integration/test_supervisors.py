"""Supervisors in each other, as `up` and its workers are, and what their children hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
