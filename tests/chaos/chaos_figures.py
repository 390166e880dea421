"""The figures of the scoreboard, each measured on a server of its own with the times that people get."""

from __future__ import annotations

import random
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import chaos_nemesis as nemesis
import chaos_work
import docker
import psutil
from chaos_check import LOST, TWICE, Evidence, among, given_up, violations
from chaos_left import Mark, of_runs
from chaos_trial import ACCOUNTS, Pace, Trial
from chaos_work import SHORT, Work
from docker.models.containers import Container
from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample, make_sample
from fixtures_server import FINAL, OURS, Json, Server, branch_files, kill, until

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
work() { for block in $(seq 0 BLOCKS); do seq $((block * 1000 + 1)) $((block * 1000 + 1000)); sleep 0.03; done; }
each
"""
DATABASE = "database: {source: sample}"
QUERIES = """\
work() { psql -XAtc "SELECT pg_sleep(0.5)" -c "SELECT '$1'" >/dev/null || exit 1; }
each
"""
# A hundred thousand units that end at once, and some of which each takes a file away before it ends.
MANY = """\
import os, time
output, checkpoint = os.environ["SEATRIAL_OUTPUT"], os.environ["SEATRIAL_CHECKPOINT"]
with open(os.environ["SEATRIAL_UNITS"]) as units, open(checkpoint, "a") as marks:
    for unit in map(str.strip, units):
        if unit.startswith("wait"):
            while not os.path.exists("/tmp/go"):
                time.sleep(0.1)
            os.remove("/tmp/go")
        with open(f"{output}/{unit}.csv", "w") as file:
            file.write("1")
        marks.write(f"{unit}\\n")
        marks.flush()
"""
RESUMES = 5
# A slot that hangs and wakes believes that nothing happened: without it nobody would try to do a thing twice.
FAULTS: tuple[nemesis.Fault, ...] = (
    *[nemesis.slot] * 4, nemesis.slot_hangs, nemesis.slot_and_container, nemesis.container, nemesis.container,
    nemesis.worker, nemesis.sweeper, nemesis.sweeper, nemesis.comparer, nemesis.web, nemesis.web, nemesis.redis,
    nemesis.redis, nemesis.link_blinks,
)  # fmt: skip


def measured(kind: str, seconds: Sequence[float]) -> str:
    """Give median and maximum in words."""
    return f"{statistics.median(seconds):.2f} s / {max(seconds):.2f} s ({len(seconds)} {kind})"


class Field:
    """A server with what people get: the lease of five seconds, some slots."""

    def __init__(self, board: Board, slots: int, database: str | None = None, *, history: bool = False) -> None:
        self._board = board
        self.folder = Path(tempfile.mkdtemp(prefix="seatrial-scores-"))
        self.lab = Repository(self.folder / "lab.git")
        databases = {"sample": database} if database is not None else {}
        self.server = Server({"lab": self.lab.path}, databases, slots=slots, lease=LEASE, history=history)
        self._blessed = database is not None

    def __enter__(self) -> Field:
        self.server.start()
        if self._blessed:
            self.server.bless("sample")
        return self

    def __exit__(self, *_: object) -> None:
        self._board.end(self.server)
        shutil.rmtree(self.folder)

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

    def batch(self, run: int) -> Json:
        """Give the one batch of a run."""
        [task] = [task for task in self.server.run(run)["tasks"] if task["kind"] == "verify"]
        return task  # type: ignore[no-any-return]

    def waits(self, run: int, done: int) -> Container | None:
        """Give the container of a batch, as soon as so many units are done."""
        found = self.server.run(run)
        batches = {str(task["id"]) for task in found["tasks"] if task["kind"] == "verify"}
        running = [one for one in self.server.workspaces(run) if one.labels["seatrial.task"] in batches]
        return running[0] if running and found["units"]["done"] == done else None

    def attempt(self, run: int, task: Json) -> Json:
        """Give the present attempt of a task."""
        wanted = (task["id"], task["attempt"])
        return next(one for one in self.server.attempts(run) if (one["task"], one["attempt"]) == wanted)


class Board:
    """What the figures have in common. `scale`: of all counts, 1 for the figures that are quoted."""

    def __init__(self, scale: float, sample: Sample, link: Proxy) -> None:
        self.scale, self.sample, self.link = scale, sample, link
        self.remarks: list[str] = []  # what a figure other than 0 is made of
        self._left: set[str] = set()
        self._marks: list[Mark] = []
        self._thousand: Evidence | None = None

    def count(self, whole: int, least: int = 1) -> int:
        """Give how many of something: the whole, or the part that is wanted."""
        return max(least, round(whole * self.scale))

    def end(self, server: Server) -> None:
        """Note what is left of a server's runs; end it, and remember it for the last look."""
        with suppress(AssertionError):
            server.cancel_all()
            server.wait_clean(self.sample)
        self._left |= set(of_runs(server, self.sample))
        self._marks.append(Mark(server))
        if server.up is not None and server.up.poll() is None:
            server.terminate()
        self._left |= set(self._marks[-1].left(self.sample))
        server.remove()

    # ---- what an interruption costs ----------------------------------------------------------------------

    def takeover_of_a_slot(self) -> str:
        def strike(field: Field, task: int) -> None:
            kill(
                until(
                    lambda: field.holder(task), lambda: f"somebody has task {task}\n{field.server.tail()}", every=0.02
                )
            )

        return measured("kills", self._takeovers(self.count(100), strike, slots=6, pause=1.0))

    def takeover_of_a_worker(self) -> str:
        def strike(field: Field, _task: int) -> None:
            kill(*field.server.processes("supervisor"), *field.server.processes("slot"))

        return measured("kills", self._takeovers(self.count(20), strike, slots=2, pause=2.0))

    def _takeovers(self, count: int, strike: Callable[[Field, int], None], *, slots: int, pause: float) -> list[float]:
        """Strike so many times at the holder of a run that prints; give the seconds until a line of the script that
        the next attempt took was committed."""
        seconds = []
        with Field(self, slots) as field:
            run = field.begin("endless", ENDLESS, ["u1"])
            while len(seconds) < count:
                before = field.batch(run)
                began = time.monotonic()
                strike(field, before["id"])

                def goes_on() -> bool:
                    now = field.batch(run)
                    if now["attempt"] == before["attempt"]:  # noqa: B023
                        return False
                    offset = field.attempt(run, now)["log_offset"]
                    taken = field.server.http.get(f"/runs/{run}/tasks/{now['id']}/log", params={"offset": offset})
                    return re.search(rb"^line \d+\n", OURS.sub(b"", taken.content), re.MULTILINE) is not None

                until(goes_on, "the script's log goes on", every=0.02)
                seconds.append(time.monotonic() - began)
                time.sleep(pause)
            field.server.open_gate(run)
            field.server.passes(run)
        return seconds

    # ---- a thousand runs ---------------------------------------------------------------------------------

    def lost(self) -> str:
        """A thousand runs of every kind with random faults; nobody waits for one that does not end."""
        count = self.count(1_000)
        with Field(self, 4, self.link.through(self.sample.dsn), history=True) as field:
            pace = Pace(faults=(0.2, 0.8), submissions=0.0, ahead=40, patience=300.0)
            trial = Trial(
                field.server, self.link, self.sample, field.lab, field.folder, lease=LEASE, pace=pace, texts=False
            )
            evidence = self._thousand = trial.go(1, mixture(count), seconds=0.0, faults=FAULTS)
            faults = Counter(one["name"] for one in trial.history.entries("fault") if one["what"] is not None)
            trial.history.close()
        self._left |= set(evidence.left)
        given, found = given_up(evidence), among(LOST, violations(evidence))
        wrong = runs_of(found, evidence) - set(given)
        self.remarks += found
        told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in faults.most_common())
        also = f"; {len(given)} given up as `needs_attention`" if given else ""
        return f"{len(wrong)} of {count:,} ({faults.total()} faults: {told}{also})"

    def twice(self) -> str:
        """What was done or noted twice, or by two at once, in the same runs."""
        if self._thousand is None:
            return "–"
        found = among(TWICE, violations(self._thousand))
        self.remarks += found
        evidence = self._thousand
        lines = sum(log.count(b"\n") for run in evidence.runs.values() for log in run.logs.values())
        attempts = sum(len(run.attempts) for run in evidence.runs.values())
        refused = sum(not write["accepted"] for write in evidence.writes)
        return (
            f"{len(found)} (of {len(evidence.writes) - refused:,} fenced writes, {refused} more refused, {lines:,} lines, "
            f"{attempts:,} attempts, {len(evidence.engine):,} events of the engine)"
        )

    def flat(self) -> str:
        """Two hundred runs with kills, after some: what lives through it needs no more than before."""
        warm, count = self.count(100, 10), self.count(200, 10)
        chance, over, kills, sizes = random.Random(3), threading.Event(), 0, list[tuple[int, int]]()
        with Field(self, 3) as field:
            server = field.server
            field.lab.branch("short", chaos_work.plain("short", SHORT).files)
            roles = ("up", "supervisor", "sweeper", "comparer", "web")
            steady = [one for role in roles for one in server.processes(role)] + server.processes("slot")[:1]

            def strike() -> None:
                nonlocal kills
                while not over.wait(2.0):
                    victims = [one for one in server.processes("slot") if one not in steady]
                    if victims:
                        kill(chance.choice(victims))
                        kills += 1

            killer = threading.Thread(target=strike)
            killer.start()
            try:
                for number in range(0, warm + count, 10):
                    for run in [server.submit("lab", "short")["id"] for _ in range(10)]:
                        server.wait(run, *FINAL, timeout=300.0)
                    if number >= warm - 10:
                        used = [(one.memory_info().rss, one.num_fds()) for one in steady]
                        sizes.append((sum(rss for rss, _ in used), sum(fds for _, fds in used)))
            finally:
                over.set()
                killer.join()
        (rss, fds), (rss_end, fds_end) = (median_of(part) for part in (sizes[:3], sizes[-3:]))
        return (
            f"memory {rss >> 20} → {rss_end >> 20} MiB ({rss_end / rss - 1:+.1%}), files {fds} → {fds_end} "
            f"({fds_end / fds - 1:+.1%}), over {count} runs with {kills} kills"
        )

    # ---- one run -----------------------------------------------------------------------------------------

    def lines(self) -> str:
        """A million numbered lines, while the slot that takes them is killed again and again."""
        blocks = self.count(1_000, 100)
        with Field(self, 4) as field:
            run = field.begin("million", MILLION.replace("BLOCKS", str(blocks - 1)), ["u1"])
            task, kills = field.batch(run)["id"], 0
            while field.server.run(run)["state"] not in FINAL:
                if (found := field.holder(task)) is not None:
                    kill(found)
                    kills += 1
                time.sleep(4.0)
            field.server.passes(run)
            log = OURS.sub(b"", field.server.task_log(run, task))
        numbers = [int(line) for line in re.findall(rb"^(\d+)$", log, re.MULTILINE)]
        gaps = len(set(range(1, blocks * 1_000 + 1)) - set(numbers))
        return f"{gaps} / {len(numbers) - len(set(numbers))} ({kills} kills)"

    def repeated(self) -> str:
        """Kill slot and container together, again and again; count the units that were begun more than once."""
        units = [f"u{number}" for number in range(self.count(60, 12))]
        with Field(self, 2) as field:
            run = field.begin("slow", "work() { sleep 0.7; }\neach\n", units)
            kills, finished = 0, dict[int, int]()
            while kills < 10 and (found := field.server.run(run))["state"] not in FINAL:
                time.sleep(0.5)
                done = {task["id"]: task["units"]["done"] for task in found["tasks"]}
                for container in field.server.workspaces(run):
                    task = int(container.labels["seatrial.task"])
                    # Three kills without any progress would end the run, and rightly.
                    if done[task] <= finished.get(task, 0):
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
        again = (len(begun) - len(set(begun))) / max(kills, 1)
        return f"{again:.2f} a kill ({kills} kills of slot and container, 1 unit in flight each)"

    def resume(self) -> str:
        """Kill the container of a run with 100,000 finished units, and of one with none: from claim to start."""
        few, many = (self._resumes(count) for count in (0, self.count(100_000)))
        difference = statistics.median(many) - statistics.median(few)
        return (
            f"{difference:+.2f} s ({statistics.median(many):.2f} s against {statistics.median(few):.2f} s, medians of "
            f"{len(many)})"
        )

    def _resumes(self, count: int) -> list[float]:
        waiting = [f"wait{number}" for number in range(RESUMES)]
        seconds = []
        with Field(self, 1) as field:
            units = f"seq -f 'u%.0f' {count}; printf '%s\\n' {' '.join(waiting)}"
            files = branch_files("", units=units, memory="512m") | {"verify.py": MANY.encode()}
            text = files["seatrial.yml"].decode().replace("exec sh verify.sh", "exec python3 verify.py")
            field.lab.branch("many", files | {"seatrial.yml": text.encode()})
            run = field.server.submit("lab", "many")["id"]
            for number in range(RESUMES):
                container = until(lambda: field.waits(run, count + number), "all but those that wait", timeout=600.0)  # noqa: B023
                with starts(field.server) as seen:
                    container.kill()
                    until(lambda: seen, "a new container starts", every=0.02)
                events = field.server.get(f"/runs/{run}/events", limit=1_000)["events"]
                claimed = [event for event in events if event["kind"] == "claim"][-1]["at"]
                seconds.append(seen[0] - datetime.fromisoformat(claimed).timestamp())
                # One unit more between two kills: three without progress would end the run, and rightly.
                container = until(lambda: field.waits(run, count + number), "the new container runs")  # noqa: B023
                container.exec_run(["touch", "/tmp/go"])
            field.server.passes(run, timeout=300.0)
        return seconds

    def cuts(self) -> str:
        """Cut a run's connections to its database every 40 to 60 s, beside the same run with a quiet link."""
        other = make_sample(self.sample.server)
        over, cuts, chance = threading.Event(), 0, random.Random(2)
        files = branch_files(QUERIES, units=[f"q/{number}" for number in range(self.count(480, 100))], more=DATABASE)
        with Field(self, 1, other.dsn) as calm, Field(self, 1, self.link.through(self.sample.dsn)) as shaken:
            runs = []
            for field in (calm, shaken):
                field.lab.branch("queries", files)
                runs.append(field.server.submit("lab", "queries")["id"])

            def cut() -> None:
                nonlocal cuts
                while not over.wait(chance.uniform(40.0, 60.0)):
                    self.link.blink()
                    cuts += 1

            cutter = threading.Thread(target=cut)
            cutter.start()
            try:
                ended = [
                    field.server.passes(run, timeout=1_800.0) for field, run in zip((calm, shaken), runs, strict=True)
                ]
            finally:
                over.set()
                cutter.join()
            same = calm.server.digests(runs[0]) == shaken.server.digests(runs[1])
        quiet, cut_up = (
            (datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
            for run in ended
        )
        outputs = "the same outputs" if same else "OTHER OUTPUTS"
        return f"{cut_up / quiet:.2f}× of {quiet:.0f} s ({cuts} cuts, {outputs})"

    # ---- after everything --------------------------------------------------------------------------------

    def left(self) -> str:
        """What is left of any of the servers: of its runs while it stood, of itself when it ended, and now."""
        for mark in self._marks:
            self._left |= set(mark.left(self.sample))
        self.remarks += sorted(self._left)
        return f"{len(self._left)} (of {len(self._marks)} servers)"


def mixture(count: int) -> list[Work]:
    """Give so many runs of twenty branches: most pass, some use a database, fail, have no units, or are compared."""
    kinds: list[Callable[[str], Work]] = [lambda name: chaos_work.plain(name, SHORT)] * 6
    kinds += [
        lambda name: chaos_work.queries(name, ACCOUNTS, SHORT),
        lambda name: chaos_work.broken(name, SHORT),
        lambda name: chaos_work.opaque(name, SHORT),
        lambda name: chaos_work.compared(name, SHORT),
    ]
    branches = [kinds[number % 10](f"b{number}") for number in range(20)]
    return [branches[number % 20] for number in range(count)]


def runs_of(found: Sequence[str], evidence: Evidence) -> set[int]:
    """Give the runs that the violations speak of."""
    named = {int(run) for text in found for run in re.findall(r"\brun (\d+)", text)[:1]}
    return named & set(evidence.accepted)


def median_of(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Give the medians of some measurements of two things."""
    first, second = (sorted(part)[len(sizes) // 2] for part in zip(*sizes, strict=True))
    return first, second


@contextmanager
def starts(server: Server) -> Iterator[list[float]]:
    """Note when the engine starts workspaces, in seconds since 1970."""
    client = docker.from_env()
    labels = [f"seatrial.installation={server.installation}", "seatrial.kind=workspace"]
    events = client.events(decode=True, filters={"event": "start", "label": labels})
    seen: list[float] = []

    def look() -> None:
        with suppress(OSError, ValueError, AttributeError):  # closed from outside while it reads
            seen.extend(event["timeNano"] / 1e9 for event in events)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield seen
    finally:
        events.close()
        client.close()
