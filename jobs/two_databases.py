"""Compare runs of one commit on two database sources: what is refused of them, and what is said of their data. Pure."""

from __future__ import annotations

from collections.abc import Collection

from jobs.run import Run
from runner.errors import Problem

FIELD = "options.baseline_database"
READ_ONCE = "The server read the file when it started: after an edit, end it and start it again"
ALIKE = (
    "The legs have the same commit and take their data from two databases, which are taken to be alike: "
    "whatever differs comes from the servers or from the data."
)


def problems(baseline: str | None, candidate: str | None, known: Collection[str]) -> list[Problem]:
    """Name what is wrong with a baseline's source. `candidate`: the other one's, None when the branch uses none."""
    if baseline is None:
        return []
    if candidate is None:
        return [Problem(FIELD, "this branch uses no database; leave it out", baseline[:80])]
    if baseline not in known:
        names = ", ".join(known) or "none yet"
        return [Problem(FIELD, f"no such source in seatrial.toml; known: {names}. {READ_ONCE}", baseline[:80])]
    if baseline == candidate:
        return [Problem(FIELD, "name another source than the candidate's, or leave it out", baseline[:80])]
    return []


def alike(run: Run) -> str:
    """Say what holds of the data of a run with two sources; empty for any other."""
    return ALIKE if run.two_databases else ""
