"""A submission: what somebody asks for, checked before anything is done with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.errors import Problem, RequestError

NOTE_CHARACTERS = 2_000
PRIORITY = range(-100, 101)
FILTER_CHARACTERS = 2_000
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
        if not self.ref:
            problems.append(Problem("ref", "name a branch, a tag, a commit or refs/pull/N/head"))
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
        for name in ("project", "ref", "units", "database", "note"):
            value = getattr(self, name) or ""
            if "\x00" in value:
                problems.append(Problem(name, "leave out the NUL character", "\\x00"))
            if half := _SURROGATE.search(value):
                problems.append(Problem(name, "leave out the half of a surrogate pair", ascii(half[0])))
        if self.options:
            problems.append(Problem("options", "no options are known yet", ", ".join(sorted(self.options))[:80]))
        if self.baseline is not None:
            problems.append(Problem("baseline", "compare runs are not available yet; leave it out", self.baseline[:80]))
        if problems:
            raise SubmissionRefused("; ".join(str(problem) for problem in problems), problems=tuple(problems))

    def body(self) -> str:
        """Give the digest by which an idempotency key knows the same request again."""
        text = json.dumps(asdict(self) | {"options": dict(self.options)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
