"""A whole server as people start it: `seatrial up` in a home of its own, spoken to by HTTP API and CLI only."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import docker
import httpx
import psutil
from docker.models.containers import Container
from fixtures_postgres import Sample, free_port

from jobs.host import installation
from jobs.settings import load_settings

Json = dict[str, Any]
T = TypeVar("T")

FINAL = ("done", "failed", "errored", "cancelled")
# A loaded machine may be ten times slower than an idle one; what hangs is noticed all the same. Whoever knows that a test
# must fail (tests/chaos/defences.py) need not wait so long for it.
PATIENCE = float(os.environ.get("SEATRIAL_CHAOS_PATIENCE", "120"))
IMAGE = "seatrial/base:bookworm"
# Where something is only while somebody is at it: copies for a comparison or an upload, files on their way into the store.
PASSING = ("spool", "objects/incoming")

# What Seatrial itself writes into a task's log.
OURS = re.compile(rb"^\xe2\x94\x80\xe2\x94\x80 .*\n|^seatrial: .*\n", re.MULTILINE)

# `each`: do the function `work UNIT` for every unit, and mark it. `gate`: wait until the test opens it.
PRELUDE = """\
gate() { until [ -e /tmp/go ]; do sleep 0.1; done; }
each() {
    while read -r unit; do
        echo "begin $unit"
        work "$unit"
        mkdir -p "$(dirname "$SEATRIAL_OUTPUT/$unit")"
        echo "$unit,1" >"$SEATRIAL_OUTPUT/$unit.csv"
        echo "$unit" >>"$SEATRIAL_CHECKPOINT"
        echo "end $unit"
    done <"$SEATRIAL_UNITS"
}
"""


def until(
    look: Callable[[], T | Literal[False] | None],
    what: str | Callable[[], str],
    *,
    timeout: float = PATIENCE,
    every: float = 0.1,
) -> T:
    """Look again and again until it is true, and give what was seen; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            wanted = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout:.0f} s: {wanted} (last seen: {seen!r})")
        time.sleep(every)


def branch_files(
    script: str, *, units: list[str] | str | None, more: str = "", memory: str = "128m"
) -> dict[str, bytes]:
    """Write the files of a branch whose verification is a shell script; `units` is a list or a command."""
    spec = [
        "version: 1",
        "workspace:",
        f"  image: {IMAGE}",
        f"  limits: {{cpus: 1, memory: {memory}, pids: 64}}",
        f"units: {json.dumps(units)}" if units is not None else "",
        "run: exec sh verify.sh",
        "timeouts: {run: 5m, stall: 2m}",
        more,
    ]
    text = "\n".join(line for line in spec if line) + "\n"
    return {"seatrial.yml": text.encode(), "verify.sh": (PRELUDE + script).encode()}


class Server:
    """`seatrial up` with everything real. `projects`: name → repository; `databases`: name → dsn."""

    live: ClassVar[list[Server]] = []  # for the diagnostics of a failed test

    def __init__(
        self,
        projects: Mapping[str, Path],
        databases: Mapping[str, str] | None = None,
        *,
        slots: int = 2,
        lease: float | None = None,
        root: Path | None = None,
        settings: tuple[str, ...] = (),
        history: bool = False,
    ) -> None:
        """Take the settings. `history`: let every process append its writes to `self.writes`."""
        self.root = root or Path(tempfile.mkdtemp(prefix="seatrial-up-"))
        self.root.mkdir(exist_ok=True)
        self._more = settings
        self.home = self.root / "server"
        self.slots, self.lease = slots, lease
        self.url = f"http://127.0.0.1:{free_port()}"
        self.config = self.root / "seatrial.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(self._settings(projects, databases or {}))
        self.log = self.root / "server.log"
        self.writes = self.root / "writes.jsonl"
        self._environ = {"SEATRIAL_HISTORY": str(self.writes)} if history else {}
        self.up: subprocess.Popen[bytes] | None = None
        self.submitted: list[int] = []
        self.http = httpx.Client(base_url=f"{self.url}/api/v1", timeout=30.0, trust_env=False)
        self.engine = docker.from_env()
        Server.live.append(self)

    def _settings(self, projects: Mapping[str, Path], databases: Mapping[str, str]) -> str:
        lines = ["[server]", f'listen = "{self.url.removeprefix("http://")}"', 'home = "server"']
        lines += self._more
        if self.lease is not None:
            lines.append(f'lease = "{self.lease:.0f}s"')
        lines += ["[pools.local]", f"slots = {self.slots}"]
        for name, repository in projects.items():
            lines += [f"[projects.{name}]", f'repository = "{repository}"']
        for name, dsn in databases.items():
            lines += [f"[databases.{name}]", f'dsn = "{dsn}"']
        return "\n".join(lines) + "\n"

    @cached_property
    def installation(self) -> str:
        """The mark of this server's containers and databases."""
        return installation(load_settings(self.config, {}))

    # ---- its processes ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            error.add_note(self.tail())
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _environment(self) -> dict[str, str]:
        usual = {name: value for name, value in os.environ.items() if not name.startswith("SEATRIAL_")}
        # The place at the end of PATH marks all that it starts: even what compares is given that.
        path = f"{usual.get('PATH', os.defpath)}{os.pathsep}{self.root}"
        return usual | {"PATH": path} | self._environ

    def start(self) -> None:
        """Start it and wait until all its workers are there."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "--config", str(self.config), "up"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(), start_new_session=True,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the API answers and each slot's present process has registered."""
        until(self._ready, "the server is ready")

    def _ready(self) -> bool:
        if self.up is not None and self.up.poll() is not None:
            raise AssertionError(f"`up` ended with exit code {self.up.returncode}:\n{self.tail()}")
        pids = {process.pid for process in self.processes("slot")}
        web = self.direct("web")
        # The API must be the present web's, and is asked after that is sure: a killed one leaves a worker that answers
        # for a moment.
        served = bool(web) and all(parent(one) == web[0].pid for one in self.processes("web") if one not in web)
        if not served or len(pids) != self.slots:
            return False
        found = self._shown()
        return len(found) == self.slots and {worker["pid"] for worker in found} == pids

    def _shown(self) -> list[Json]:
        """List the slots that the API shows: none while it does not answer, or the records are being migrated."""
        with suppress(httpx.TransportError):
            answer = self.http.get("/capacity")
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                return [worker for pool in answer.json()["pools"] for worker in pool["workers"]]
        return []

    def terminate(self, *, within: float = 30.0) -> tuple[int, float]:
        """Send SIGTERM to `up`; give its exit code and the seconds that it took."""
        assert self.up is not None
        began = time.monotonic()
        self.up.terminate()
        code = self.up.wait(within)
        self.up = None
        return code, time.monotonic() - began

    def processes(self, role: str = "") -> list[psutil.Process]:
        """List the living processes of this server: of a role (`up`, `supervisor`, `slot`, `sweeper`, `comparer`, `web` …),
        or all, with whatever these started.
        """
        mark, found = str(self.root).encode(), []
        for pid in psutil.pids():
            # Most are somebody else's; to ask psutil about every process of a machine takes twice as long.
            with suppress(psutil.Error, OSError):
                told = Path(f"/proc/{pid}/cmdline").read_bytes()
                if mark not in told and (role or mark not in Path(f"/proc/{pid}/environ").read_bytes()):
                    continue
                process = psutil.Process(pid)
                words = process.cmdline()
                if process.status() != psutil.STATUS_ZOMBIE and (not role or role_of(words) == role):
                    found.append(process)
        return found

    def direct(self, role: str) -> list[psutil.Process]:
        """List the processes of a role that `up` itself started."""
        assert self.up is not None
        return [process for process in self.processes(role) if parent(process) == self.up.pid]

    def remove(self) -> None:
        """End it, see that nothing is left of it, and remove its directory."""
        Server.live.remove(self)
        try:
            if self.up is not None and self.up.poll() is None:
                self.terminate()
            until(
                lambda: not [*self.processes(), *self.containers()],
                lambda: f"nothing is left after the end: {[*self.processes(), *self.containers()]}\n{self.tail()}",
                timeout=15.0,
            )
        finally:
            for process in self.processes():
                with suppress(psutil.Error):
                    process.kill()
            for container in self.containers():
                with suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)
            self.http.close()
            self.engine.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def tail(self, lines: int = 40) -> str:
        """Give the last lines of the processes' log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # ---- HTTP and CLI ------------------------------------------------------------------------------------

    def get(self, path: str, **query: str | int) -> Json:
        """Give the JSON of an API address."""
        answer = self.http.get(path, params=query)
        assert answer.status_code < 500, f"GET {path}: {answer.status_code} {answer.text}"
        found: Json = answer.json()
        return found

    def post(self, path: str, body: Json | None = None, *, key: str | None = None) -> httpx.Response:
        """Send JSON to an API address."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        return self.http.post(path, json=body or {}, headers=headers)

    def submit(self, project: str, ref: str, **more: Any) -> Json:
        """Submit a run."""
        answer = self.post("/runs", {"project": project, "ref": ref, **more})
        assert answer.status_code == 201, answer.text
        run: Json = answer.json()
        self.submitted.append(run["id"])
        return run

    def act(self, run: int, verb: str) -> Json:
        """Cancel, resume or rerun a run."""
        answer = self.post(f"/runs/{run}/{verb}")
        assert answer.status_code in (200, 201), answer.text
        found: Json = answer.json()
        if found["id"] != run:
            self.submitted.append(found["id"])
        return found

    def run(self, run: int) -> Json:
        """Give a run with its tasks and steps."""
        return self.get(f"/runs/{run}")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call `seatrial` with this server's settings."""
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", "--config", str(self.config), *words],
            env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def bless(self, database: str) -> None:
        """Bless a database source."""
        done = self.cli("db", "bless", database, "--yes")
        assert done.returncode == 0, done.stderr

    # ---- what a run does ---------------------------------------------------------------------------------

    def wait(self, run: int, *states: str, timeout: float = PATIENCE) -> Json:
        """Wait until a run is in one of the states (default: a final one), and give it."""
        wanted = states or FINAL

        def look() -> Json | None:
            try:
                found = self.run(run)
            except httpx.TransportError:  # web may be on its way back
                return None
            if found["state"] not in wanted and found["state"] in FINAL:
                raise AssertionError(f"run {run} ended as {found['state']} {found['reason']}, wanted: {wanted}")
            return found if found["state"] in wanted else None

        return until(look, f"run {run} is {' or '.join(wanted)}", timeout=timeout)

    def passes(self, run: int, *, timeout: float = PATIENCE) -> Json:
        """Wait until a run ended as passed."""
        found = self.wait(run, "done", timeout=timeout)
        assert found["verdict"] == "passed"
        return found

    def wait_log(self, run: int, text: str, *, times: int = 1) -> None:
        """Wait until the run's log holds a text so many times; fail at once when the run ended without."""

        def look() -> bool:
            try:
                state = self.run(run)["state"]
                found = self.http.get(f"/runs/{run}/log").text.count(text)
            except httpx.TransportError:  # web may be on its way back
                return False
            assert found >= times or state not in FINAL, f"run {run} ended without {text!r} in its log"
            return found >= times

        until(look, f"{text!r} is in the log of run {run}")

    def task_log(self, run: int, task: int) -> bytes:
        """Give a task's log."""
        return self.http.get(f"/runs/{run}/tasks/{task}/log").content

    def script_logs(self, run: int) -> list[bytes]:
        """Give what the script printed in each batch: the log without Seatrial's own lines."""
        found = self.run(run)
        return [OURS.sub(b"", self.task_log(run, task["id"])) for task in found["tasks"] if task["kind"] == "verify"]

    def begun(self, run: int) -> list[str]:
        """List the units that the script began, as often as it began them, sorted."""
        lines = b"\n".join(self.script_logs(run)).decode().splitlines()
        return sorted(line.removeprefix("begin ") for line in lines if line.startswith("begin "))

    def attempts(self, run: int) -> list[Json]:
        """List all attempts of a run's tasks."""
        found: list[Json] = self.get(f"/runs/{run}/attempts")["attempts"]
        return found

    def interruptions(self, run: int) -> list[str]:
        """List the codes of the attempts that were interrupted."""
        return [one["reason"]["code"] for one in self.attempts(run) if one["outcome"] == "interrupted"]

    def states(self, run: int) -> list[str]:
        """List the states that the run's tasks went through."""
        events = self.get(f"/runs/{run}/events")["events"]
        return [event["data"]["to"] for event in events if event["kind"] == "task"]

    def digests(self, run: int) -> dict[str, str]:
        """Give the digest of each unit's output."""
        units = self.get(f"/runs/{run}/units", limit=1_000)["units"]
        return {unit["unit"]: unit["output"]["digest"] for unit in units if unit["output"]}

    def cancel_all(self) -> None:
        """Cancel what a test has left running, and wait for its end."""
        for run in self.submitted:
            until(lambda: self._asked_to_end(run), f"run {run} is asked to end")  # noqa: B023
            self.wait(run)
        self.submitted.clear()

    def _asked_to_end(self, run: int) -> bool:
        with suppress(httpx.TransportError):  # web may be on its way back
            return self.run(run)["state"] in FINAL or self.post(f"/runs/{run}/cancel").status_code in (200, 409)
        return False

    # ---- what it has on this host ------------------------------------------------------------------------

    def containers(self, **labels: str | int) -> list[Container]:
        """List this server's containers that carry these labels, running or not."""
        wanted = {"installation": self.installation, **labels}
        # `Container.list` inspects each and trips over those that vanish meanwhile.
        found = self.engine.api.containers(
            all=True, filters={"label": [f"seatrial.{k}={v}" for k, v in wanted.items()]}
        )
        kept = []
        for one in found:
            with suppress(docker.errors.NotFound):
                kept.append(self.engine.containers.get(one["Id"]))
        return kept

    def workspaces(self, run: int) -> list[Container]:
        """List the running workspace containers of a run."""
        return [one for one in self.containers(kind="workspace", run=run) if one.status == "running"]

    def left(self, sample: Sample | None = None) -> list[str]:
        """List what there is of it beside the pause containers of its slots and the frozen bases."""
        found = [str(one.name) for one in self.containers() if one.labels.get("seatrial.kind") != "pause"]
        if sample is not None:
            mark = f"_{self.installation}_"
            found += [name for name in sample.databases() | sample.roles() if mark in name]
        for directory in ("executions", "doors", *PASSING):
            if (self.home / directory).is_dir():
                found += [str(path) for path in (self.home / directory).iterdir()]
        volumes = self.engine.api.volumes()["Volumes"] or []
        found += [volume["Name"] for volume in volumes if str(self.root) in str(volume.get("Options"))]
        return found

    def wait_clean(self, sample: Sample | None = None) -> None:
        """Wait until nothing is left of any run."""
        until(lambda: not self.left(sample), lambda: f"nothing is left of {self.left(sample)}")

    def open_gate(self, run: int) -> None:
        """Let the scripts of a run that wait in `gate` go on."""
        for container in self.workspaces(run):
            with suppress(docker.errors.APIError):  # it may have ended meanwhile
                container.exec_run(["touch", "/tmp/go"])

    def finish(self, run: int, *states: str) -> Json:
        """Open every gate of a run, also those of containers still to come, until it is in one of the states."""

        def look() -> bool:
            self.open_gate(run)
            with suppress(httpx.TransportError):
                return self.run(run)["state"] in FINAL
            return False

        until(look, f"run {run} ends with its gates open", every=0.3)
        return self.wait(run, *(states or ("done",)))


def parent(process: psutil.Process) -> int:
    """Give the pid of its parent; 0 for one that has just gone."""
    with suppress(psutil.Error):
        return process.ppid()
    return 0


def role_of(words: list[str]) -> str:
    """Tell what a process is by its command line; "" for another one, and for one that has none while it begins or ends."""
    words = " ".join(words).split()  # a process that names itself has one word only
    if not words:
        return ""
    if "valkey" in Path(words[0]).name:
        return "valkey"
    if any("gunicorn" in word for word in words[:3]):
        return "web"
    if "--slot" in words:
        return "slot"
    names = {"up": "up", "worker": "supervisor", "sweeper": "sweeper", "comparer": "comparer", "web": "web"}
    return next((role for word, role in names.items() if word in words), "")


def kill(*processes: psutil.Process) -> None:
    """Send SIGKILL, as the kernel does when memory is short."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs: neither gone nor a zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def diagnose(servers: list[Server]) -> Iterator[tuple[str, str]]:
    """Tell what a failed test's servers were at: the runs of the test with their logs, and the processes' log."""
    for server in servers:
        for run in server.submitted[-4:]:
            with suppress(httpx.HTTPError, AssertionError):
                found, attempts = server.run(run), server.attempts(run)
                lines = [f"{key}: {found[key]}" for key in ("ref", "commit", "state", "verdict", "reason", "units")]
                shown = ("id", "kind", "state", "attempt", "units", "reason")
                lines += [" ".join(str(task[key]) for key in shown) for task in found["tasks"]]
                lines += [" ".join(map(str, attempt.values())) for attempt in attempts]
                yield f"run {run}", "\n".join(lines)
                yield f"log of run {run}", server.http.get(f"/runs/{run}/log").text[-1_500:]
        yield f"processes of {server.url}", "\n".join(line[:600] for line in server.tail().splitlines())
