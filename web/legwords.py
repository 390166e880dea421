"""Legs of compare runs in words: their names, and what they took over from an earlier run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.run import Leg
from runner.model import BASELINE_AGAIN
from web.words import duration, plural

_TITLES: Mapping[str, str] = {BASELINE_AGAIN: "baseline again"}
_DIFFERS: Mapping[str, str] = {
    "specification": "its specification differs",
    "image": "its image differs",
    "data": "its data differs",
    "database": "its data is of another database",
    "migrations": "migrations ran there",
    "units": "it did not list all units that are wanted now",
}
_PROOF: Mapping[str, str] = {"spec": "Specification", "image": "Image", "data": "Data"}


def title(name: str) -> str:
    """Name a leg as people read it."""
    return _TITLES.get(name, name)


def reused(leg: Leg) -> str:
    """Say what a leg took over from which run, or why it took nothing; empty when none was looked for."""
    found = leg.reused
    if not found:
        return ""
    where = f"run #{found['run']}"
    if found["differs"]:
        reasons = [_DIFFERS.get(one, f"{one} differs") for one in found["differs"]]
        words = reasons[0] if len(reasons) == 1 else f"{', '.join(reasons[:-1])} and {reasons[-1]}"
        return f"nothing taken over from {where}: {words}"
    return (
        f"taken over from {where}: {plural(found['units'], 'unit')}, saved {duration(found['seconds_saved']) or '0 s'}"
    )


def proof(leg: Leg) -> list[tuple[str, str]]:
    """List what was the same on both legs: the commit, and what else their outputs come from."""
    found: Mapping[str, Any] | None = (leg.reused or {}).get("proof")
    if not found:
        return []
    rest = [(_PROOF.get(name, name), str(value)) for name, value in found.items() if value is not None]
    return [("Commit", leg.commit), *rest]
