"""Compare the units of compare runs as soon as both legs have them; its own process, safe to run twice."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog

from jobs.adapters.sql_store import Store
from jobs.causes import causes
from jobs.compare_child import Child, ChildEnded, Request
from jobs.comparing import Compared, Pair, Side, UnitClass, classify, second_run
from jobs.flag import Flag
from jobs.heartbeats import BEAT_SECONDS, COMPARER
from jobs.noise import Noise, judged, learn
from runner.compare_files import OutputUnreadable
from runner.errors import StoreUnavailable
from runner.passing import passing_directory
from runner.ports import Objects
from runner.spec import Compare, parse_spec

LOOK_SECONDS = 0.25  # a difference is on the page within two seconds
AWAY_SECONDS = 2.0
MOST_AWAY_SECONDS = 600.0  # what fills the disk itself is not to do so all the time
PAIRS_AT_ONCE = 500
RECORD_SECONDS = 0.5  # at most so long until what was compared is written
BUDGET_SECONDS = 300.0
BUDGET_DIFFERENCES = 2_000
MANIFEST_BYTES = 64 << 20
COPY_BYTES = 1 << 20
MOST_WHY = 300  # characters

log = structlog.get_logger(__name__)


class PutOff(Exception):
    """A pair cannot be compared now, and its outputs are not the reason."""


class Comparer:
    """Look for pairs that are ready, compare them, write what became of them, and end runs that are compared."""

    def __init__(
        self,
        store: Store,
        objects: Objects,
        spool: Path,
        *,
        seconds: float = BUDGET_SECONDS,
        child: Child | None = None,
    ) -> None:
        """Take the parts. `spool`: a directory for copies of objects that are not local; `seconds`: for one unit."""
        self._store, self._objects, self._spool, self._seconds = store, objects, spool, seconds
        self._child = child or Child()
        self._spec = lru_cache(64)(self._read_spec)
        self.stop = Flag()  # a signal handler may raise it
        self.put_off = 0  # runs of which not all can be compared for the moment
        self._rests: dict[int, tuple[float, float]] = {}  # of such a run: until when, and how long, it is left alone
        self._why: dict[int, str] = {}  # and why

    def work(self) -> None:
        """Look again and again until stopped."""
        log.info("comparer.ready")
        # A thread of its own: one pair may take minutes.
        presence = threading.Thread(target=self._show_presence, name="presence", daemon=True)
        presence.start()
        try:
            seen = None
            while not self.stop.is_set():
                try:
                    pulse = self._store.database.pulse()
                    if pulse != seen:
                        seen = None if self.pass_once() or self.put_off else pulse
                except (StoreUnavailable, OSError) as error:
                    log.error("comparer.away", error=str(error))
                    seen = None
                    self.stop.wait(AWAY_SECONDS)
                self.stop.wait(LOOK_SECONDS)
            presence.join()
        finally:
            self._child.close()

    def _show_presence(self) -> None:
        while True:
            try:
                self.show_presence()
            except StoreUnavailable as error:
                log.error("comparer.away", error=error.text)
            if self.stop.wait(BEAT_SECONDS):
                return

    def show_presence(self) -> None:
        """Note that a comparer lives, and why it cannot compare some runs for the moment; raises StoreUnavailable."""
        self._store.heartbeats.beat(COMPARER, self._why.copy())

    def pass_once(self) -> bool:
        """Compare what is ready; tell whether more is left that need not be waited for."""
        more, self.put_off = False, 0
        self._store.acceptances.go_on()
        runs = self._store.compare.open_runs()
        self._rests = {run: rest for run, rest in self._rests.items() if run in runs}
        self._why = {run: why for run, why in self._why.items() if run in self._rests}
        for run in runs:
            if self.stop.is_set():
                return True
            until, seconds = self._rests.pop(run, (0.0, AWAY_SECONDS / 2))
            if time.monotonic() < until:
                self._rests[run] = until, seconds
                self.put_off += 1
                continue
            self._why.pop(run, None)
            pairs = self._store.compare.ready(run, PAIRS_AT_ONCE)
            if not self._compare(run, pairs):
                self.put_off += 1
                seconds = min(2 * seconds, MOST_AWAY_SECONDS)
                self._rests[run] = time.monotonic() + seconds, seconds
            elif len(pairs) == PAIRS_AT_ONCE:
                more = True
            elif self._store.compare.close(run):
                log.info("run.compared", run=run)
        return more

    def _compare(self, run: int, pairs: list[Pair]) -> bool:
        """Compare pairs and write what was found; tell whether none of them has to be tried again later."""
        whole = True
        found: list[tuple[Pair, Compared]] = []
        written, harmful = time.monotonic(), 0
        limit = self._fail_fast(run) if pairs else None
        for pair in pairs:
            kind = classify(pair)
            twice = second_run(pair)
            if self.stop.is_set() and (kind is None or twice is not None):
                break
            plain = None if kind is None else with_causes(Compared(pair.unit, pair.position, kind))
            try:
                one = plain or self._compare_outputs(run, pair)
                found.append((pair, judged(one, None if twice is None else self._learn(run, twice))))
            except Exception as error:  # whatever is wrong with one pair, other runs go on
                expected = isinstance(error, (PutOff, StoreUnavailable, OSError))
                log.error("compare.put_off", run=run, unit=pair.unit, error=str(error), exc_info=not expected)
                self._why[run] = _said(pair.unit, error, expected=expected)
                whole = False
                break
            harmful += found[-1][1].harmful
            if time.monotonic() - written > RECORD_SECONDS or (limit is not None and harmful >= limit):
                if not self._store.compare.record(run, found, fail_fast=limit):
                    return True
                found, written, harmful = [], time.monotonic(), 0
        if found:
            self._store.compare.record(run, found, fail_fast=limit)
        return whole

    def _compare_outputs(self, run: int, pair: Pair) -> Compared:
        """Compare two outputs; what cannot be compared is different, and says why."""
        began = time.monotonic()
        answer = self._answer(run, pair)
        seconds = time.monotonic() - began
        if (why := answer.get("unreadable")) is not None:
            note = {"code": "unreadable", "text": f"{why} Told by its bytes: they differ.", "count": 1}
            summary: dict[str, Any] = {"class": "different", "notes": [note]}
            return with_causes(
                Compared(pair.unit, pair.position, UnitClass.DIFFERENT, summary=summary, seconds=seconds)
            )
        return self._recorded(pair, answer["result"], seconds)

    def _learn(self, run: int, twice: Pair) -> Noise | None:
        """Say what moves between two runs of the baseline; nothing when it cannot be read."""
        result = self._answer(run, twice).get("result")
        return None if result is None else learn(result, split(result))

    def _answer(self, run: int, pair: Pair) -> dict[str, Any]:
        """Compare two outputs in the child: their result, or why they are unreadable. Raises PutOff."""
        try:
            with self._request(run, pair) as request:
                answer = self._ask(request)
        except ChildEnded as error:
            log.warning("compare.ended", run=run, unit=pair.unit, error=str(error))
            if error.passing or self.stop.is_set():
                raise PutOff(str(error)) from error
            answer = {"unreadable": "Comparing it took more memory or time than a comparison may have."}
        except OutputUnreadable as error:
            answer = {"unreadable": error.text}
        except KeyError as error:
            digest = str(error.args[0])[:12]
            text = (
                f"The object {digest}… was removed from the store: restore it, or cancel the run and submit it again."
            )
            raise PutOff(text) from error
        if (why := answer.get("away")) is not None:
            raise PutOff(why)
        if (why := answer.get("unreadable")) is not None:
            log.warning("compare.unreadable", run=run, unit=pair.unit, error=why)
        return answer

    def _ask(self, request: Request) -> dict[str, Any]:
        """Ask the child; once more when it was killed, for that may have been another's fault."""
        try:
            return self._child.compare(request, self.stop)
        except ChildEnded as error:
            if error.late or self.stop.is_set():
                raise
            log.warning("compare.again", unit=request.unit, error=str(error))
            return self._child.compare(request, self.stop)

    def _recorded(self, pair: Pair, result: dict[str, Any], seconds: float) -> Compared:
        """Keep the stored differences as an object, and the rest with the run."""
        differences = split(result)
        rows = None
        if differences:
            rows, _ = self._objects.put(io.BytesIO(json.dumps(differences).encode()))
        counts = result["rows"]
        changed = counts["changed"] + counts["added"] + counts["removed"]
        kind = UnitClass(result["class"])
        found = Compared(pair.unit, pair.position, kind, changed, largest_delta(result), result, rows, seconds)
        return with_causes(found, differences)

    # ---- requests -------------------------------------------------------------------------------------

    @contextmanager
    def _request(self, run: int, pair: Pair) -> Iterator[Request]:
        assert pair.baseline is not None
        assert pair.candidate is not None
        trees = [self._files(side) for side in (pair.baseline, pair.candidate)]
        tree = any(side.output is not None and side.output.tree for side in (pair.baseline, pair.candidate))
        with passing_directory(self._spool) as spool, ExitStack() as stack:
            a, b = (
                {
                    name: (self._local(digest, spool, stack) if trees[1 - number].get(name) != digest else "", digest)
                    for name, digest in files.items()
                }
                for number, files in enumerate(trees)
            )
            rules = tuple(rule.model_dump_json() for rule in self._spec(run).rules)
            yield Request(pair.unit, tree, rules, a, b, self._seconds, BUDGET_DIFFERENCES, str(spool))

    def _files(self, side: Side) -> dict[str, str]:
        """Give the digest of each file of an output; raises OutputUnreadable."""
        output = side.output
        if output is None:
            return {}
        if not output.tree:
            return {output.name: output.digest}
        with self._objects.open(output.digest) as file:
            text = file.read(MANIFEST_BYTES + 1)
        if len(text) > MANIFEST_BYTES:
            raise OutputUnreadable(f"The list of its files is longer than {MANIFEST_BYTES:,} bytes.")
        try:
            return {name: entry["digest"] for name, entry in json.loads(text).items()}
        except ValueError as error:
            raise OutputUnreadable("The list of its files is damaged.") from error

    def _local(self, digest: str, spool: Path, stack: ExitStack) -> str:
        """Give the path of an object: its own where that is a file here, that of a copy otherwise. Raises PutOff."""
        self._go_on()
        source = stack.enter_context(self._objects.open(digest))
        name = getattr(source, "name", None)
        if isinstance(source, io.BufferedReader) and isinstance(name, str):
            return name
        copy = spool / digest
        with copy.open("wb") as file:
            while piece := source.read(COPY_BYTES):
                self._go_on()
                file.write(piece)
        return str(copy)

    def _go_on(self) -> None:
        """Raise PutOff when the comparer was told to stop."""
        if self.stop.is_set():
            raise PutOff("the comparer ends")

    def _read_spec(self, run: int) -> Compare:
        text, source = self._store.runs.spec_of(run, "candidate")
        return parse_spec(text, source=source).compare

    def _fail_fast(self, run: int) -> int | None:
        """Give after how many differing units the run is to stop: as it was submitted, or as its branch says."""
        asked: int | None = self._store.runs.get(run).options.get("fail_fast", self._spec(run).fail_fast)
        return asked or None


def _said(unit: str, error: Exception, *, expected: bool) -> str:
    """Say what keeps a pair from being compared, in one line."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    why = next(iter(words.splitlines()), "") if expected else ""
    why = why or f"an error in Seatrial itself, {type(error).__name__}; the comparer's log tells more"
    return f"unit {unit}: {why[:MOST_WHY].rstrip('.')}"


def with_causes(found: Compared, differences: Sequence[Mapping[str, Any]] = ()) -> Compared:
    """Add why a unit differs."""
    return replace(found, causes=causes(found, differences))


def split(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the stored differences out of a result, each with its file where there are several."""
    if "results" not in result:
        return list(result.pop("differences", []))
    return [
        {"file": file["file"], **difference} for file in result["results"] for difference in file.pop("differences", [])
    ]


def largest_delta(result: Mapping[str, Any]) -> float | None:
    """Give the size of the largest difference of two numbers; None when there is none."""
    files = result.get("results", [result])
    found = [
        abs(change["delta"]) for file in files for change in file["changes"] if isinstance(change["delta"], int | float)
    ]
    return max(found, default=None)
