"""Compare outputs in a process of its own: they come from branch code, and no file of theirs may end the comparer.

Reads one request a line from standard input, and writes one answer a line:

    {"unit", "tree", "rules": […], "a": {name: [path, digest]}, "b": {…}, "seconds", "differences", "spool"}
    {"result": …} with runner.comparison's JSON, {"unreadable": "why"}, or {"away": "why"} for what may work later
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobs.flag import LOOK_SECONDS, Flag
from runner.errors import RequestError
from runner.parent import end_with_parent

# Address space: what the engines for large tables map, and no more.
MEMORY = 6 << 30
# The child watches the time itself; one that does not is killed so many seconds later.
GRACE_SECONDS = 30.0


class ChildEnded(Exception):
    """The child ended without an answer: killed by the kernel, by us because its time was over (`late`) or because the
    comparer ends, or by an error.

    `passing`: it could not begin (its code is being replaced), or somebody stopped it; the outputs are no reason.
    """

    def __init__(self, status: int, *, late: bool) -> None:
        self.late = late
        self.passing = status > 0 or -status in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        super().__init__(f"the process that compares ended with status {status}")


@dataclass(frozen=True)
class Request:
    """Two outputs of a unit: (path, digest) of each file by its name. `rules` are those of seatrial.yml, each as JSON."""

    unit: str
    tree: bool
    rules: tuple[str, ...]
    a: Mapping[str, tuple[str, str]]
    b: Mapping[str, tuple[str, str]]
    seconds: float
    differences: int
    spool: str


class Child:
    """The process that compares, started when it is first needed and anew after it ended."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "jobs.compare_child")) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def compare(self, request: Request, stop: Flag) -> dict[str, Any]:
        """Give the answer; raises ChildEnded, soon after `stop` was raised too."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        late, over = threading.Event(), threading.Event()
        deadline = time.monotonic() + request.seconds + GRACE_SECONDS

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                if time.monotonic() > deadline:
                    late.set()
                if late.is_set() or stop.is_set():
                    process.kill()
                    return

        watching = threading.Thread(target=watch, name="watch", daemon=True)
        watching.start()
        try:
            process.stdin.write(json.dumps(vars(request)).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            over.set()
            watching.join()
        if not answer.endswith(b"\n"):
            raise ChildEnded(self._end(), late=late.is_set())
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        # Nothing of the server's environment: settings and passwords are no business of a file from a branch.
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            preexec_fn=partial(_confine, os.getpid()),
        )
        return self._process

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what it did not read any more
                    stream.close()
        return process.wait()


def _confine(parent: int) -> None:
    end_with_parent(parent, signal.SIGKILL)  # who bounds its time is gone
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compare what a request names; what it cannot is told apart from what may be so later, as with a full disk."""
    try:
        return _compared(request)
    except (RequestError, MemoryError) as error:
        return {"unreadable": str(error) or "It takes more memory than a comparison may have."}
    except (OSError, ImportError) as error:
        return {"away": str(error)}
    except Exception as error:  # noqa: BLE001 - the outermost frame: it would be the same the next time
        return {"unreadable": f"Comparing it failed ({type(error).__name__}: {str(error)[:200]})."}


def _compared(request: Mapping[str, Any]) -> dict[str, Any]:
    from runner.compare import Budget, Output, compare
    from runner.compare_rules import RuleBook
    from runner.compare_tree import compare_outputs
    from runner.spec_rule import Rule

    book = RuleBook(Rule.model_validate_json(rule) for rule in request["rules"])
    budget, spool = Budget(request["seconds"], request["differences"]), Path(request["spool"])
    sides = [
        {name: Output(Path(path), name.rsplit("/", 1)[-1], digest) for name, (path, digest) in request[side].items()}
        for side in ("a", "b")
    ]
    unit, parquet = request["unit"], None
    if any(name.endswith(".parquet") for side in sides for name in side):
        from runner.adapters.table_duckdb import DuckdbParquet  # half a second that few outputs need

        parquet = DuckdbParquet()
    more: dict[str, Any] = {"budget": budget, "spool": spool, "parquet": parquet}
    if request["tree"] or not all(len(side) == 1 for side in sides):
        a, b = sides
        found = compare_outputs(a, b, lambda name: book.choose(f"{unit}/{name}", name), **more)
        return {"result": found.as_json()}
    [one], [other] = (list(side.values()) for side in sides)
    return {"result": compare(one, other, book.choose(unit), **more).as_json()}


def main() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
