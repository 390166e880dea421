"""Machines as processes: each a process group of its own with a warden and a worker, killed as a stop would end it.

Run as a program it is the nursery: it has imported everything, reads orders from its standard input, a line of JSON
each, forks a machine for each and prints its pid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ACCOUNT, REGION = "123456789012", "us-east-1"


@dataclass(frozen=True)
class Order:
    """A machine to be: its records, its name, what its work takes, and what else it does."""

    url: str
    instance: str
    pool: str
    work: float
    lease: float
    busy: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return f"host-{self.instance}"


class Nursery:
    """Gives machines quickly: importing takes longer than their whole life."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        self._pids: set[int] = set()

    def boot(self, order: Order) -> int:
        """Have a machine run, and give its process group."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self._pids.add(pid)
        return pid

    def end(self, pid: int) -> None:
        """Take a machine's power away."""
        self._pids.discard(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        for pid in list(self._pids):
            self.end(pid)
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _be(order: Order) -> None:
    """Be a machine until the power goes."""
    from hands import Hands

    from jobs import warden
    from jobs.adapters.imds import Identity
    from jobs.adapters.sql_store import Store
    from jobs.closing import Closing
    from runner.errors import StoreUnavailable
    from runner.model import TaskKind

    class Metadata:
        def identity(self) -> Identity:
            return Identity(order.instance, REGION, ACCOUNT, "m6i.large")

        def notices(self) -> Sequence[Any]:
            return ()

    warden.ANSWER_AGAIN_SECONDS, warden.BEAT_SECONDS = 0.1, 0.5
    imds: Any = Metadata()
    senses = warden.Senses(
        imds, lambda: order.busy, lambda: None, lambda instance: "stop", lambda: None, siblings=lambda: ()
    )
    store = Store.open(order.url)
    hands = Hands(store)
    with tempfile.TemporaryDirectory() as home:
        post = warden.Post(order.host, order.pool, REGION, ACCOUNT, dead_man=None)
        watch = warden.Warden(post, store, Closing(Path(home), order.pool), senses)
        name = f"{order.host}-1"
        store.workers.register(name=name, host=order.host, pool=order.pool, pid=os.getpid())
        claim, until, renewed = None, 0.0, 0.0
        while True:
            try:
                watch.go_round()
                now = time.monotonic()
                if claim is None:
                    claim = store.tasks.claim(pool=order.pool, host=order.host, worker=name, lease=order.lease)
                    until, renewed = now + order.work, now
                elif now < until:
                    if now - renewed > order.lease / 3:
                        store.tasks.renew(claim.task.id, claim.task.attempt, order.lease)
                        renewed = now
                elif claim.task.kind is TaskKind.PREPARE:
                    hands.prepared(claim, ("a",), batches=1)
                    claim = None
                else:
                    hands.mark(claim, *claim.units)
                    hands.end(claim)
                    claim = None
            except StoreUnavailable:
                pass
            time.sleep(0.03)


def _nursery() -> None:
    import hands  # noqa: F401 - so that no machine has to

    import jobs.adapters.sql_store
    import jobs.warden  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        words = json.loads(line)
        order = Order(**(words | {"busy": tuple(words["busy"])}))
        pid = os.fork()
        if pid == 0:
            os.setsid()
            sink = os.open(os.environ.get("MACHINE_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            _be(order)
        print(pid, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    _nursery()
