"""What can be seen inside a run: its tasks, units, outputs, logs, and what is new since a cursor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from jobs.adapters.sql_inside import Chunks, SqlInside
from jobs.adapters.sql_store import Store
from jobs.run import Attempt, Event, LogChunk, Run, StepRecord, Task, Unit, UnitCounts
from runner.errors import NotFound
from runner.model import Output, UnitState
from runner.ports import Objects

LOG_WINDOW = 65_536


@dataclass(frozen=True)
class Changes:
    """What happened in a run since a cursor."""

    run: Run
    events: tuple[Event, ...]
    logs: tuple[LogChunk, ...]
    steps: tuple[StepRecord, ...]


class Views:
    """The inside of runs, read from the store; nothing here writes."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._inside: SqlInside = store.inside
        self._objects = objects

    def tasks(self, run: int) -> list[Task]:
        """List its preparations and batches."""
        return self._inside.tasks(run)

    def task(self, task: int) -> Task:
        """Give a task; raises NotFound."""
        return self._inside.task(task)

    def attempts(self, run: int) -> list[Attempt]:
        """List every claim of its tasks, oldest first."""
        return self._inside.attempts(run)

    def steps(self, run: int) -> list[StepRecord]:
        """List the steps of its tasks, oldest first."""
        return self._inside.steps(run)

    def events(self, run: int, *, after: int = 0, limit: int = 500) -> list[Event]:
        """List what happened after an event."""
        return self._inside.events(run, after=after, limit=limit)

    def units(
        self,
        run: int,
        *,
        leg: str | None = None,
        state: UnitState | None = None,
        text: str | None = None,
        task: int | None = None,
        after: int | None = None,
        limit: int = 200,
    ) -> list[Unit]:
        """List units by position; `after` is the position of the last one seen."""
        limit = max(1, min(limit, 5_000))
        return self._inside.units(run, leg=leg, state=state, text=text, task=task, after=after, limit=limit)

    def unit(self, run: int, leg: str, unit: str) -> Unit:
        """Give a unit; raises NotFound."""
        return self._inside.unit(run, leg, unit)

    def unit_counts(self, run: int) -> dict[str, UnitCounts]:
        """Count the units of each leg."""
        return self._inside.unit_counts(run)

    def open_output(self, run: int, leg: str, unit: str) -> tuple[Output, BinaryIO]:
        """Open a finished unit's output; raises NotFound."""
        found = self._inside.unit(run, leg, unit)
        if found.output is None:
            raise NotFound(
                f"Unit {unit} has no output (yet): it is {found.state}.",
                field="unit",
                value=unit,
                remedy="Wait for it.",
            )
        return found.output, self.open_object(found.output.digest)

    def open_object(self, digest: str) -> BinaryIO:
        """Open a stored object; raises NotFound."""
        try:
            return self._objects.open(digest)
        except KeyError:
            raise NotFound(f"The object {digest[:12]}… is not in the store any more.") from None

    # ---- logs and what is live ----------------------------------------------------------------------------------

    def log(self, task: int, *, offset: int = 0, limit: int = LOG_WINDOW) -> bytes:
        """Give bytes [offset, offset + limit) of a task's log; empty at its end."""
        return self._read(self._inside.log_chunks(task, offset, limit), offset, limit)

    def _read(self, chunks: Chunks, offset: int, limit: int) -> bytes:
        parts, position, end = [], offset, offset + limit
        for start, data, digest in chunks:
            skip = position - start
            if data is None:
                assert digest is not None
                with self.open_object(digest) as file:
                    file.seek(skip)
                    piece = file.read(end - position)
            else:
                piece = data[skip:][: end - position]
            parts.append(piece)
            position += len(piece)
            if position >= end:
                break
        return b"".join(parts)

    def open_log(self, task: int, *, offset: int = 0) -> Iterator[bytes]:
        """Give a task's log from `offset` to its present end, in pieces."""
        while piece := self.log(task, offset=offset, limit=1 << 20):
            yield piece
            offset += len(piece)

    def pulse(self) -> int:
        """Give a number that changes whenever any record does; ask from one thread only."""
        return self._store.database.pulse()

    def changes(self, run: int, *, event: int, logs: Mapping[int, int], limit: int = LOG_WINDOW) -> Changes:
        """Give the events after `event` and each task's log from its offset in `logs` (0 when it is not named)."""
        found = self._inside.changes(run, event=event, logs=logs, limit=limit)
        chunks = (LogChunk(task, offset, self._read(parts, offset, limit)) for task, offset, parts in found.chunks)
        return Changes(found.run, found.events, tuple(chunks), found.steps)
