"""One trial: runs are submitted while the nemesis works; then all is quiet, and the evidence is gathered."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import chaos_work
import httpx
from chaos_check import Evidence, RunEvidence
from chaos_history import History
from chaos_nemesis import FAULTS, Fault, Field, Nemesis
from chaos_watch import Watch
from chaos_work import Work
from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample
from fixtures_server import FINAL, Server, until

ACCOUNTS = 1_000  # that the sample database has


def works(seed: int, count: int) -> list[Work]:
    """Give the branches of a trial: one of each kind, then again from the beginning."""
    kinds = (
        lambda name: chaos_work.plain(name),
        lambda name: chaos_work.queries(name, ACCOUNTS),
        lambda name: chaos_work.opaque(name),
        lambda name: chaos_work.broken(name),
        lambda name: chaos_work.compared(name),
        lambda name: chaos_work.cancelled(name),
    )
    return [kinds[number % len(kinds)](f"t{seed}-{number}") for number in range(count)]


@dataclass(frozen=True)
class Pace:
    """How a trial goes on. `faults`: the pause between two, and `submissions`: the longest one between two, in leases.

    `ahead`: how many runs may be there that have not ended. `patience`: seconds for all to end when all is quiet.
    """

    faults: tuple[float, float] = (0.3, 1.2)
    submissions: float = 0.5
    ahead: int = 1_000
    patience: float = 240.0


class Trial:
    """A seed's trial on a server that is ready."""

    def __init__(
        self,
        server: Server,
        link: Proxy,
        sample: Sample,
        lab: Repository,
        folder: Path,
        *,
        lease: float,
        pace: Pace | None = None,
        texts: bool = True,
    ) -> None:
        self.server, self.link, self.sample, self.lab, self.lease = server, link, sample, lab, lease
        self.pace, self._look_into_texts = pace or Pace(), texts
        self.history = History(folder / "history.jsonl")
        self.works: dict[int, Work] = {}
        self._open: set[int] = set()  # those that were not seen to have ended

    def go(
        self, seed: int, branches: Sequence[Work], *, seconds: float, faults: tuple[Fault, ...] = FAULTS
    ) -> Evidence:
        """Do it: `seconds` is how long the nemesis works at least; it goes on until all runs were submitted."""
        chance = Random(seed)
        for work in {work.branch: work for work in branches}.values():
            self.lab.branch(work.branch, work.files)
        field = Field(self.server, self.link, self.lease)
        nemesis = Nemesis(field, self.history, seed, faults=faults, pause=self.pace.faults)
        with Watch(self.server.installation, self.history, self.server):
            nemesis.start()
            try:
                ends = time.monotonic() + seconds
                for work in branches:
                    self._hold_back()
                    self._submit(work, chance)
                    time.sleep(chance.uniform(0.0, self.lease * self.pace.submissions))
                time.sleep(max(0.0, ends - time.monotonic()))
            finally:
                nemesis.stop()
            self.history.note("quiet")
            self._wait()
        return self._evidence()

    def _hold_back(self) -> None:
        """Wait while too many runs have not ended."""
        ends = time.monotonic() + self.pace.patience
        while len(self._open) >= self.pace.ahead and time.monotonic() < ends:
            self._look_who_ended()
            time.sleep(0.05)

    def _look_who_ended(self) -> None:
        for run in list(self._open):
            with suppress(httpx.TransportError):
                if self.server.run(run)["state"] in FINAL:
                    self._open.discard(run)
                elif len(self._open) >= self.pace.ahead:
                    break  # the older ones end first

    def _submit(self, work: Work, chance: Random) -> None:
        """Submit as a client does that does not know whether its request arrived: again, with the same key."""
        key = f"{work.branch}-{chance.getrandbits(32)}"
        body = {"project": "lab", "ref": work.branch, "priority": chance.randint(-1, 1)}
        if "sample" in work.files["seatrial.yml"].decode():
            body["database"] = "sample"
        if work.compared:
            body |= {"baseline": work.branch, "options": {"reuse": False}}

        def ask() -> int | None:
            with suppress(httpx.TransportError):
                answer = self.server.post("/runs", body, key=key)
                if answer.status_code in (200, 201):
                    return int(answer.json()["id"])
                assert answer.status_code == 503, answer.text
            return None

        run = until(ask, f"{work.branch} is accepted", timeout=60.0, every=0.2)
        self.works[run] = work
        self._open.add(run)
        self.server.submitted.append(run)
        self.history.note("accepted", run=run, branch=work.branch)
        if "cancelled" in work.states:
            threading.Thread(target=self._cancel, args=(run, chance.uniform(0.5, 4.0)), daemon=True).start()

    def _cancel(self, run: int, after: float) -> None:
        time.sleep(after)

        def ask() -> bool:
            with suppress(httpx.TransportError):
                return self.server.post(f"/runs/{run}/cancel").status_code in (200, 409)
            return False

        until(ask, f"run {run} is asked to end")
        self.history.note("cancel", run=run)

    def _wait(self) -> None:
        """Wait until all has ended and nothing is left; what is not so in the end is for the checker."""
        self.server.wait_ready()
        ends = time.monotonic() + self.pace.patience
        while self._open and time.monotonic() < ends:
            self._look_who_ended()
            time.sleep(0.1)
        with suppress(AssertionError):
            self.server.wait_clean(self.sample)

    def _evidence(self) -> Evidence:
        entries = self.history.entries()
        engine = [(one["action"], one["name"], one["task"]) for one in entries if one["kind"] == "engine"]
        runs = {}
        seen: dict[int, list[dict[str, object]]] = {}
        for one in entries:
            if one["kind"] == "seen":
                seen.setdefault(one["run"], []).append(one)
        for run, work in self.works.items():
            if (found := self._look_at(run, work, seen.get(run, []))) is not None:
                runs[run] = found
        return Evidence(
            accepted=list(self.works),
            runs=runs,
            engine=engine,
            writes=History.read(self.server.writes),
            left=self.server.left(self.sample),
            texts=self._texts(runs) if self._look_into_texts else {},
            canaries=[self.sample.password.encode()],
        )

    def _look_at(self, run: int, work: Work, seen: list[dict[str, object]]) -> RunEvidence | None:
        answer = self.server.http.get(f"/runs/{run}")
        if answer.status_code == 404:
            return None
        found = answer.json()
        return RunEvidence(
            run=found,
            states=work.states,
            outputs=work.outputs,
            digests=self.server.digests(run) if work.outputs else {},
            events=self.server.get(f"/runs/{run}/events", limit=1_000)["events"],
            attempts=self.server.attempts(run),
            logs={task["id"]: self.server.task_log(run, task["id"]) for task in found["tasks"]},
            seen=seen,
            failed=work.failed,
        )

    def _texts(self, runs: dict[int, RunEvidence]) -> dict[str, bytes]:
        """Collect all that is stored or shown: logs, answers of the API, the processes' log, the stored files."""
        texts = {f"log of task {task}": log for run in runs.values() for task, log in run.logs.items()}
        for run in runs:
            for path in (f"/runs/{run}", f"/runs/{run}/events", f"/runs/{run}/units", f"/runs/{run}/attempts"):
                texts[path] = self.server.http.get(path).content
        texts["the processes' log"] = self.server.log.read_bytes()
        for folder, _, names in os.walk(self.server.home):  # it lives: what is listed may be gone a moment later
            for path in (Path(folder, name) for name in sorted(names)):
                with suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink() and path.stat().st_size < 16 << 20:
                        texts[str(path.relative_to(self.server.root))] = path.read_bytes()
        return texts


def told(history: History) -> str:
    """Tell in a few lines what was done, for a trial that failed."""
    lines = []
    for one in history.entries():
        if one["kind"] in ("fault", "accepted", "cancel", "quiet"):
            rest = " ".join(str(value) for key, value in one.items() if key not in ("at", "kind"))
            lines.append(f"{one['at']:.1f} {one['kind']} {rest}")
    return "\n".join(lines)


def dump(evidence: Evidence, folder: Path) -> None:
    """Keep all that is known of each run in a file, for a trial that failed."""
    for run, found in evidence.runs.items():
        with (folder / f"run-{run}.txt").open("w", encoding="utf-8") as file:
            for part in ([found.run], found.attempts, found.events, found.seen):
                file.writelines(f"{one}\n" for one in part)
            for task, log in found.logs.items():
                file.write(f"==> {task}\n{log.decode(errors='replace')}\n")
