"""A submission: what somebody asks for, checked before anything is done with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.errors import Problem, RequestError
from runner.model import SNAPSHOT

NOTE_CHARACTERS = 2_000
PRIORITY = range(-100, 101)
FILTER_CHARACTERS = 2_000
# compare: with the project's default baseline when none is named; merge_base: not with the baseline's tip, but with the
# commit at which the candidate left it.
# fail_fast: stop a compare run when so many units differ, whatever the branch says; 0 never.
# reuse: false lets the baseline do everything anew, also what an earlier run has finished.
# baseline_database: the same commit on both legs, the baseline's on this source, the candidate's on the run's own.
# noise: how often the baseline runs, whatever the branch says; 2 learns what moves by itself.
FLAGS = ("compare", "merge_base", "reuse")
# snapshot, baseline_snapshot: the snapshot of its source that a leg is made from; the newest when none is named.
SNAPSHOTS = ("snapshot", "baseline_snapshot")
OPTIONS = (*FLAGS, "fail_fast", "noise", "baseline_database", *SNAPSHOTS)
FAIL_FAST = range(10_000_001)
NOISE = (1, 2)
_SURROGATE = re.compile("[\ud800-\udfff]")


class SubmissionRefused(RequestError):
    """The submission is not valid."""

    code = "submission_invalid"


@dataclass(frozen=True)
class Submission:
    """What a run is asked to be; `baseline` makes it a compare run."""

    project: str
    ref: str
    baseline: str | None = None
    units: str | None = None
    database: str | None = None
    priority: int = 0
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise SubmissionRefused that names every field that is wrong."""
        problems = []
        if not self.project:
            problems.append(Problem("project", "name one of the projects of seatrial.toml"))
        for name, ref in (("ref", self.ref), ("baseline", self.baseline)):
            if ref == "":
                problems.append(Problem(name, "name a branch, a tag, a commit or refs/pull/N/head"))
        if type(self.priority) is not int or self.priority not in PRIORITY:
            allowed = f"use a whole number from {PRIORITY[0]} to {PRIORITY[-1]}"
            problems.append(Problem("priority", allowed, str(self.priority)[:40]))
        if len(self.note) > NOTE_CHARACTERS:
            problems.append(
                Problem("note", f"use {NOTE_CHARACTERS:,} characters at most", f"{len(self.note):,} characters")
            )
        if self.units is not None and len(self.units) > FILTER_CHARACTERS:
            problems.append(
                Problem("units", f"use {FILTER_CHARACTERS:,} characters at most", f"{len(self.units):,} characters")
            )
        for name in ("project", "ref", "baseline", "units", "database", "note"):
            value = getattr(self, name) or ""
            if "\x00" in value:
                problems.append(Problem(name, "leave out the NUL character", "\\x00"))
            if half := _SURROGATE.search(value):
                problems.append(Problem(name, "leave out the half of a surrogate pair", ascii(half[0])))
        problems += self._option_problems()
        if problems:
            raise SubmissionRefused("; ".join(str(problem) for problem in problems), problems=tuple(problems))

    @property
    def compares(self) -> bool:
        """Tell whether a baseline is wanted: a ref, the project's own, or the same commit on another source."""
        return self.baseline is not None or self.options.get("compare") is True or self.baseline_database is not None

    @property
    def baseline_database(self) -> str | None:
        """Name the source of the baseline's data, when it is not the candidate's."""
        return self.options.get("baseline_database")

    def _option_problems(self) -> list[Problem]:
        problems = []
        for name, value in sorted(self.options.items()):
            if name not in OPTIONS:
                problems.append(Problem(f"options.{name}"[:80], f"no such option; known: {', '.join(OPTIONS)}"))
            elif name == "fail_fast" and (type(value) is not int or value not in FAIL_FAST):
                problems.append(
                    Problem("options.fail_fast", "use a whole number from 0 to 10,000,000", str(value)[:40])
                )
            elif name == "baseline_database" and (type(value) is not str or not value):
                problems.append(Problem("options.baseline_database", "name one of the databases", str(value)[:40]))
            elif name in SNAPSHOTS and (type(value) is not str or not SNAPSHOT.fullmatch(value)):
                problems.append(
                    Problem(f"options.{name}", "use a name that `seatrial db snapshots` lists", str(value)[:40])
                )
            elif name == "noise" and (type(value) is not int or value not in NOISE):
                problems.append(Problem("options.noise", "use 1 or 2: how often the baseline runs", str(value)[:40]))
            elif name in FLAGS and type(value) is not bool:
                problems.append(Problem(f"options.{name}", "use true or false", str(value)[:40]))
        if self.options.get("compare") is False and self.baseline is not None:
            problems.append(Problem("options.compare", "leave it out, or leave out the baseline", "false"))
        if self.options.get("merge_base") is True and not self.compares:
            problems.append(Problem("options.merge_base", "name a baseline, or set options.compare", "true"))
        if self.options.get("fail_fast") is not None and not self.compares:
            problems.append(Problem("options.fail_fast", "name a baseline, or set options.compare"))
        if self.options.get("baseline_snapshot") is not None and self.baseline_database is None:
            why = "with one database both legs have the same snapshot: name it in options.snapshot"
            problems.append(Problem("options.baseline_snapshot", why))
        if self.baseline_database is not None:
            problems += self._two_databases_problems()
        if self.options.get("noise") is not None and not self.compares:
            problems.append(Problem("options.noise", "name a baseline, or set options.compare"))
        return problems

    def _two_databases_problems(self) -> list[Problem]:
        """With two sources both legs have one commit: whatever names another baseline is refused."""
        why = "leave it out: with options.baseline_database both legs have the same commit"
        others = [("baseline", self.baseline)] if self.baseline is not None else []
        others += [(f"options.{name}", "true") for name in ("compare", "merge_base") if self.options.get(name) is True]
        return [Problem(name, why, str(value)[:80]) for name, value in others]

    def body(self) -> str:
        """Give the digest by which an idempotency key knows the same request again."""
        text = json.dumps(asdict(self) | {"options": dict(self.options)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
