"""Measure what an interruption costs, beside plain RQ, and put the table into docs/reliability.md.

python tests/chaos/scoreboard.py [ROW ...]      (rows: see FIGURES; all of them write the table)
"""

from __future__ import annotations

import os
import platform
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import docker
import httpx
import plain_rq
import psutil
from chaos_check import Evidence, RunEvidence, violations
from fixtures_git import Repository
from fixtures_postgres import Proxy, end_server, make_sample, start_server
from fixtures_server import FINAL, OURS, Server, branch_files, kill, until

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
LEASE = 5.0
# Prints a numbered line fifty times a second, until the gate is opened.
ENDLESS = """\
work() {
    n=0
    until [ -e /tmp/go ]; do n=$((n + 1)); echo "line $n"; sleep 0.02; done
}
each
"""
MILLION = """\
work() { for block in $(seq 0 999); do seq $((block * 1000 + 1)) $((block * 1000 + 1000)); sleep 0.03; done; }
each
"""
DATABASE = "database: {source: sample}"
QUERIES = """\
work() { psql -XAtc "SELECT pg_sleep(0.5)" -c "SELECT '$1'" >/dev/null || exit 1; }
each
"""
# A hundred thousand units that end at once, and one that waits.
MANY = """\
import os, time
output, checkpoint = os.environ["SEATRIAL_OUTPUT"], os.environ["SEATRIAL_CHECKPOINT"]
with open(os.environ["SEATRIAL_UNITS"]) as units, open(checkpoint, "a") as marks:
    for unit in map(str.strip, units):
        while unit == "last" and not os.path.exists("/tmp/go"):
            time.sleep(0.1)
        with open(f"{output}/{unit}.csv", "w") as file:
            file.write("1")
        marks.write(f"{unit}\\n")
        marks.flush()
"""


@dataclass(frozen=True)
class Figure:
    """A row of the table. `measure` gives what is shown."""

    name: str
    aim: str
    measure: Callable[[], str]
    rq: Callable[[], str] = lambda: "–"


def measured(kind: str, seconds: list[float]) -> str:
    """Give median and maximum in words."""
    return f"{statistics.median(seconds):.2f} s / {max(seconds):.2f} s ({len(seconds)} {kind})"


class Field:
    """A server with what people get: the lease of five seconds, some slots."""

    def __init__(self, slots: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seatrial-scores-"))
        self.lab = Repository(self.folder / "lab.git")
        self.server = Server({"lab": self.lab.path}, slots=slots, lease=LEASE)

    def __enter__(self) -> Field:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.cancel_all()
        self.server.remove()

    def begin(self, name: str, script: str, units: list[str]) -> int:
        """Submit a verification, and wait until it prints."""
        self.lab.branch(name, branch_files(script, units=units))
        run: int = self.server.submit("lab", name)["id"]
        self.server.wait_log(run, "begin ")
        return run

    def holder(self, task: int) -> psutil.Process | None:
        """Give the process that has a task now."""
        workers = [worker for pool in self.server.get("/capacity")["pools"] for worker in pool["workers"]]
        found = [worker["pid"] for worker in workers if worker["task"] == task]
        with suppress(psutil.Error):
            return psutil.Process(found[0]) if found else None
        return None

    def batch(self, run: int) -> dict[str, int]:
        """Give the one batch of a run."""
        [task] = [task for task in self.server.run(run)["tasks"] if task["kind"] == "verify"]
        return task  # type: ignore[no-any-return]


def takeovers(count: int, strike: Callable[[Field, int], None], *, slots: int, pause: float) -> list[float]:
    """Strike so many times at the holder of a run that prints; give the seconds until its log went on in other hands."""
    seconds = []
    with Field(slots) as field:
        run = field.begin("endless", ENDLESS, ["u1"])
        while len(seconds) < count:
            before = field.batch(run)
            began = time.monotonic()
            strike(field, before["id"])
            size = before["log_size"]

            def goes_on() -> bool:
                nonlocal size
                now = field.batch(run)
                if now["attempt"] == before["attempt"]:  # noqa: B023
                    size = now["log_size"]
                    return False
                return now["log_size"] > size

            until(goes_on, "the log goes on", every=0.02)
            seconds.append(time.monotonic() - began)
            time.sleep(pause)
        field.server.open_gate(run)
        field.server.passes(run)
    return seconds


def _strike_slot(field: Field, task: int) -> None:
    kill(until(lambda: field.holder(task), lambda: f"somebody has task {task}\n{field.server.tail()}", every=0.02))


def _strike_worker(field: Field, _task: int) -> None:
    kill(*field.server.processes("supervisor"), *field.server.processes("slot"))


def takeover_of_a_slot() -> str:
    return measured("kills", takeovers(100, _strike_slot, slots=6, pause=1.0))


def takeover_of_a_worker() -> str:
    return measured("kills", takeovers(20, _strike_worker, slots=2, pause=2.0))


THOUSAND: dict[str, str] = {}


def a_thousand_runs() -> str:
    """A thousand runs with random kills; fills in the rows that are seen by the way."""
    count = int(os.environ.get("SEATRIAL_SCORE_RUNS", "1000"))
    with Field(2) as field:
        server = field.server
        field.lab.branch("trivial", branch_files("work() { :; }\neach\n", units=["u1"]))
        server.passes(server.submit("lab", "trivial")["id"])
        over = threading.Event()
        kills = 0
        chance = random.Random(1)

        def kill_on() -> None:
            nonlocal kills
            while not over.wait(15.0):
                if slots := server.processes("slot"):
                    kill(chance.choice(slots))
                    kills += 1

        killer = threading.Thread(target=kill_on)
        killer.start()
        runs = [server.submit("lab", "trivial")["id"] for _ in range(count)]
        steady: list[psutil.Process] = []
        sizes: list[tuple[int, int]] = []

        def size() -> tuple[int, int]:
            return sum(one.memory_info().rss for one in steady), sum(one.num_fds() for one in steady)

        for number, run in enumerate(runs):
            server.wait(run, *FINAL, timeout=1_800.0)
            if number == count // 5:
                steady = [one for role in ("supervisor", "sweeper", "web") for one in server.processes(role)]
            if number >= count // 5 and number % 50 == 0:
                sizes.append(size())
        sizes.append(size())
        over.set()
        killer.join()
        server.wait_ready()
        server.wait_clean()
        evidence = Evidence(accepted=runs, runs={run: look_at(server, run) for run in runs}, left=server.left())
        found = violations(evidence)
        lost = [run for run in runs if evidence.runs[run].run["state"] not in FINAL]
        wrong = [text for text in found if not text.startswith("nothing_left")]
        (rss, fds), (rss_end, fds_end) = sizes[0], sizes[-1]
        THOUSAND["twice"] = f"{len(wrong)} violations of I1–I4 in {count:,} runs" if wrong else f"0 (of {count:,} runs)"
        THOUSAND["left"] = str(len(evidence.left))
        THOUSAND["flat"] = (
            f"memory {rss >> 20} → {rss_end >> 20} MiB ({rss_end / rss - 1:+.1%}), files {fds} → {fds_end} "
            f"({fds_end / fds - 1:+.1%}), over {count * 4 // 5} runs"
        )
        for text in wrong:
            print("  violation:", text)
        return f"{len(lost)} of {count:,} ({kills} kills)"


def look_at(server: Server, run: int) -> RunEvidence:
    """Gather what is known of a run that had one unit."""
    found = server.run(run)
    return RunEvidence(
        run=found,
        states=("done",),
        outputs={},
        digests={},
        events=server.get(f"/runs/{run}/events", limit=1_000)["events"],
        attempts=server.attempts(run),
        logs={task["id"]: server.task_log(run, task["id"]) for task in found["tasks"]},
    )


def a_million_lines() -> str:
    """A million numbered lines, while the slot that takes them is killed again and again."""
    with Field(4) as field:
        run = field.begin("million", MILLION, ["u1"])
        task, kills = field.batch(run)["id"], 0
        while field.server.run(run)["state"] not in FINAL:
            if (found := field.holder(task)) is not None:
                kill(found)
                kills += 1
            time.sleep(4.0)
        field.server.passes(run)
        log = OURS.sub(b"", field.server.task_log(run, task))
    numbers = [int(line) for line in re.findall(rb"^(\d+)$", log, re.MULTILINE)]
    gaps = len(set(range(1, 1_000_001)) - set(numbers))
    return f"{gaps} / {len(numbers) - len(set(numbers))} ({kills} kills)"


def units_repeated() -> str:
    """Kill slot and container together, ten times; count the units that were begun more than once."""
    units = [f"u{number}" for number in range(60)]
    with Field(2) as field:
        run = field.begin("slow", "work() { sleep 0.7; }\neach\n", units)
        kills, finished = 0, dict[int, int]()
        while kills < 10 and (found := field.server.run(run))["state"] not in FINAL:
            time.sleep(0.5)
            done = {task["id"]: task["units"]["done"] for task in found["tasks"]}
            for container in field.server.workspaces(run):
                task = int(container.labels["seatrial.task"])
                if done[task] <= finished.get(
                    task, 0
                ):  # three kills without any progress would end the run, and rightly
                    continue
                finished[task] = done[task]
                slot = field.holder(task)
                with suppress(docker.errors.APIError):
                    container.kill()
                    kills += 1
                if slot is not None:
                    kill(slot)
                time.sleep(3.0)
                break
        field.server.passes(run, timeout=300.0)
        begun = field.server.begun(run)
    return f"{(len(begun) - len(set(begun))) / kills:.2f} a kill ({kills} kills of slot and container, 1 unit in flight each)"


def cut_connections() -> str:
    """Cut a run's connections to its database every 40 to 60 s, beside the same run with a quiet link."""
    postgres = start_server("pg-cut")
    folder = Path(tempfile.mkdtemp(prefix="seatrial-cuts-"))
    lab = Repository(folder / "lab.git")
    lab.branch("queries", branch_files(QUERIES, units=[f"q/{number}" for number in range(480)], more=DATABASE))
    over, cuts, chance = threading.Event(), 0, random.Random(2)
    try:
        with Proxy(postgres.port) as link:
            calm = Server({"lab": lab.path}, {"sample": make_sample(postgres).dsn}, slots=1, lease=LEASE)
            dsn = link.through(make_sample(postgres).dsn)
            with calm, Server({"lab": lab.path}, {"sample": dsn}, slots=1, lease=LEASE) as shaken:
                for server in (calm, shaken):
                    server.bless("sample")
                runs = [(server, server.submit("lab", "queries")["id"]) for server in (calm, shaken)]

                def cut() -> None:
                    nonlocal cuts
                    while not over.wait(chance.uniform(40.0, 60.0)):
                        link.blink()
                        cuts += 1

                cutter = threading.Thread(target=cut)
                cutter.start()
                try:
                    ended = [server.passes(run, timeout=1_800.0) for server, run in runs]
                finally:
                    over.set()
                    cutter.join()
                same = calm.digests(runs[0][1]) == shaken.digests(runs[1][1])
    finally:
        end_server(postgres)
    quiet, cut_up = (
        (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
        for run in ended
    )
    outputs = "the same outputs" if same else "OTHER OUTPUTS"
    return f"{cut_up / quiet:.2f}× of {quiet:.0f} s ({cuts} cuts, {outputs})"


def resume_of_many() -> str:
    """Kill the container of a run with 100,000 finished units, and of one with none: from claim to start."""
    took = []
    for count in (0, 100_000):
        with Field(1) as field:
            units = "seq -f 'u%.0f' " + (str(count) if count else "0") + "; echo last"
            files = branch_files("", units=units, memory="512m") | {"verify.py": MANY.encode()}
            text = files["seatrial.yml"].decode().replace("exec sh verify.sh", "exec python3 verify.py")
            field.lab.branch("many", files | {"seatrial.yml": text.encode()})
            run = field.server.submit("lab", "many")["id"]
            until(lambda: field.server.run(run)["units"]["done"] == count and field.server.workspaces(run),  # noqa: B023
                  "all but one are done", timeout=600.0)  # fmt: skip
            each = []
            for _ in range(2):  # a third one without progress would end it
                [container] = field.server.workspaces(run)
                with watching(field.server) as starts:
                    container.kill()
                    until(lambda: starts, "a new container starts", every=0.02)
                claims = [
                    e for e in field.server.get(f"/runs/{run}/events", limit=1_000)["events"] if e["kind"] == "claim"
                ]
                claimed = datetime.fromisoformat(claims[-1]["at"]).timestamp()
                each.append(starts[0] - claimed)
                time.sleep(3.0)
            took.append(statistics.median(each))
            field.server.open_gate(run)
            field.server.passes(run, timeout=300.0)
    return f"{took[1] - took[0]:+.2f} s ({took[1]:.2f} s against {took[0]:.2f} s)"


class watching:  # noqa: N801
    """Note when the engine starts workspaces, in seconds since 1970."""

    def __init__(self, server: Server) -> None:
        self._client = docker.from_env()
        labels = [f"seatrial.installation={server.installation}", "seatrial.kind=workspace"]
        self._events = self._client.events(decode=True, filters={"event": "start", "label": labels})

    def __enter__(self) -> list[float]:
        starts: list[float] = []

        def look() -> None:
            with suppress(OSError, ValueError, AttributeError):
                starts.extend(event["timeNano"] / 1e9 for event in self._events)

        threading.Thread(target=look, daemon=True).start()
        return starts

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._client.close()


def main(wanted: list[str]) -> None:
    figures = [
        Figure("takeover after SIGKILL of a worker slot: first new committed log line, p50 / max", "< 2 s / < 5 s",
               takeover_of_a_slot, plain_rq.takeover),
        Figure(f"the same when its supervisor died too (lease alone, {LEASE:.0f} s)",
               f"< {LEASE + 1:.0f} s / < {LEASE + 3:.0f} s", takeover_of_a_worker),
        Figure("runs lost, with random kills", "0", a_thousand_runs),
        Figure("effects applied twice", "0", lambda: THOUSAND.get("twice", "–"), plain_rq.twice),
        Figure("log gaps / duplicates in 10^6 lines", "0 / 0", a_million_lines),
        Figure("units repeated", "≤ units in flight", units_repeated),
        Figure("resume of a leg with 100,000 finished units, over one with none: claim → container started", "≤ +1 s",
               resume_of_many),
        Figure("a run whose connections are cut every 40 to 60 s, over an undisturbed one", "≤ 1.15×", cut_connections),
        Figure("left behind after everything", "0", lambda: THOUSAND.get("left", "–")),
        Figure("resident memory and open files of web, sweeper and supervisor", "flat ± 5 %",
               lambda: THOUSAND.get("flat", "–")),
    ]  # fmt: skip
    rows = []
    for figure in figures:
        if wanted and figure.measure.__name__ not in wanted:
            continue
        began = time.monotonic()
        shown = figure.measure()
        rows.append(f"| {figure.name} | {figure.aim} | {shown} | {figure.rq()} |")
        print(f"{rows[-1]}   [{time.monotonic() - began:.0f} s]", flush=True)
    if not wanted:
        write(rows)


def write(rows: list[str]) -> None:
    """Put the table in its place in the page."""
    head = ["| figure | aim | Seatrial | plain RQ |", "|---|---|---|---|"]
    when = f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, Python {platform.python_version()}."
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, "", *head, *rows, "", when, "", END]) + after, "utf-8")


if __name__ == "__main__":
    with suppress(httpx.HTTPError):
        main(sys.argv[1:])
