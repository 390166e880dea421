"""What was taken of an execution so far, kept beside it for whoever goes on with it on this host."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from runner.model import Output, UnitState
from runner.outputs import Stamp, Taken


@dataclass
class Kept:
    """What a journal holds. `told`: bytes of the file `steps` that were told; `position` and `began`: which command comes
    next, or runs since that uptime of the machine (None: not yet)."""

    told: int = 0
    position: int = 0
    began: float | None = None
    finished: dict[str, UnitState] = field(default_factory=dict)
    taken: dict[str, Taken] = field(default_factory=dict)
    token: str | None = None


class Journal:
    """A file of JSON lines in the execution's directory, where branch code sees nothing of it.

    Written before the record that it belongs to: what the record lacks is taken again from the execution's own files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Kept:
        """Read it; half a line at the end, of a process that was killed, does not count."""
        kept = Kept()
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return kept
        for line in text.split(b"\n"):
            try:
                self._take(kept, json.loads(line))
            except ValueError:
                continue
        return kept

    @staticmethod
    def _take(kept: Kept, entry: dict[str, Any]) -> None:
        if "unit" in entry:
            kept.finished[entry["unit"]] = UnitState(entry["state"])
            if entry["output"] is not None:
                path, stamp, output = entry["output"]
                kept.taken[entry["unit"]] = Taken(path, Stamp(*stamp), Output(*output))
        elif "token" in entry:
            kept.token = entry["token"]
        elif "told" in entry:
            kept.told, kept.position, kept.began = entry["told"], entry["position"], entry["began"]

    def finished(self, units: Iterable[tuple[str, UnitState, Taken | None]]) -> None:
        """Keep units that are finished, and what is known of their outputs."""
        self._append(
            {
                "unit": unit,
                "state": state.value,
                "output": None if taken is None else (taken.path, astuple(taken.stamp), astuple(taken.output)),
            }
            for unit, state, taken in units
        )

    def token(self, token: str) -> None:
        """Keep the last token of a script without units."""
        self._append([{"token": token}])

    def step(self, told: int, position: int, began: float | None) -> None:
        """Keep how much of `steps` was told, and how far the commands are (see Kept)."""
        self._append([{"told": told, "position": position, "began": began}])

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        # A line break on both sides: one that was killed may have left half a line.
        text = "".join(f"\n{json.dumps(entry)}\n" for entry in entries)
        if text:
            with self._path.open("ab") as file:
                file.write(text.encode())
