"""What can be seen inside a run: its tasks, units, outputs, logs, and what is new since a cursor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from jobs.adapters.sql_inside import Pulse, SqlInside
from jobs.adapters.sql_store import Store
from jobs.attempts import Work
from jobs.run import Attempt, Event, StepRecord, Task, Unit, UnitCounts
from runner.errors import NotFound
from runner.model import Output, UnitState
from runner.ports import Objects

LOG_WINDOW = 65_536
LAST_BYTE = 1 << 62


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

    def works(self, run: int) -> list[tuple[Attempt, Work]]:
        """List its attempts, oldest first, each with what it did with its task's units."""
        return self._inside.works(run)

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
                remedy="Wait for it, or resume the run when it has ended.",
            )
        return found.output, self.open_object(found.output.digest)

    def open_object(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open a stored object for reading from `offset`; raises NotFound."""
        try:
            return self._objects.open(digest, offset=offset)
        except KeyError:
            raise NotFound(f"The object {digest[:12]}… is not in the store any more.") from None

    # ---- logs and what is live ----------------------------------------------------------------------------------

    def log(self, task: int, *, offset: int = 0, limit: int = LOG_WINDOW) -> bytes:
        """Give bytes [offset, offset + limit) of a task's log; empty at its end."""
        return b"".join(self._parts(task, offset, offset + limit, limit))

    def open_log(
        self, task: int, *, offset: int = 0, end: int | None = None, block: int = LOG_WINDOW
    ) -> Iterator[bytes]:
        """Give a task's log from `offset` to `end`, or to its present end, in pieces of up to `block` bytes."""
        held: list[bytes] = []
        size = 0
        for part in self._parts(task, offset, end, block):
            if held and size + len(part) > block:
                yield b"".join(held)
                held, size = [], 0
            held.append(part)
            size += len(part)
        if held:
            yield b"".join(held)

    def _parts(self, task: int, offset: int, end: int | None, block: int) -> Iterator[bytes]:
        """Give what is stored from `offset` on, as it is stored, but in parts of up to `block` bytes."""
        end = LAST_BYTE if end is None else end
        while offset < end and (found := self._inside.log_chunks(task, offset, end - offset)):
            for stored in found:
                if stored.offset > offset:
                    raise OSError(f"task {task}: the log has no bytes from {offset} to {stored.offset}")
                skip, stop = offset - stored.offset, min(stored.size, end - stored.offset)
                if stored.data is not None:
                    for at in range(skip, stop, block):
                        yield stored.data[at : min(at + block, stop)]
                else:
                    assert stored.object is not None
                    with self.open_object(stored.object, offset=skip) as file:
                        for at in range(skip, stop, block):
                            part = file.read(min(block, stop - at))
                            if len(part) < min(block, stop - at):
                                raise OSError(f"task {task}: the log's object {stored.object} is cut short")
                            yield part
                offset = stored.offset + stop

    def pulse(self) -> int:
        """Give a number that changes whenever any record does; ask from one thread only."""
        return self._store.database.pulse()

    def pulses(self, runs: Sequence[int]) -> dict[int, Pulse]:
        """Tell of all these runs at once how far they have come."""
        return self._inside.pulses(runs)
