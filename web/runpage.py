"""What a run's page is made of, gathered from the service; also what is sent to it live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment

from jobs.run import Run, RunState, StepRecord, Task, TaskState, Unit
from runner.checkpoint import failed_line
from runner.model import UnitState
from web import diffwords, links, present, shapes
from web.ansi import plain
from web.loglines import LogIndexes
from web.schemas import RunDetail
from web.words import task_title

if TYPE_CHECKING:
    from jobs.service import Service

# "Its last twenty lines": enough to hold a traceback's end, little enough to be read. Where a unit failed, a few of them
# stand after the place: some scripts tell why when they have marked it.
EXCERPT = 20
AFTER = 4


@dataclass(frozen=True)
class Failure:
    """The one failure that matters first, with its log where it was marked (`at_place`), or else with the log's end."""

    title: str
    text: str
    unit: Unit | None
    href: str
    log: str
    lines: list[tuple[int, str]]
    at_place: bool
    more: int


class RunPages:
    """Builds the live part of run pages; safe to use outside of a request."""

    def __init__(self, service: Service, indexes: LogIndexes, templates: Environment) -> None:
        self._service = service
        self._indexes = indexes
        self._templates = templates

    def head(self, run: Run) -> present.Head:
        """Gather the head of a run's page."""
        service, final = self._service, run.state.final
        tasks = service.tasks(run.id)
        return present.head(
            run,
            tasks,
            service.steps(run.id),
            None if final else shapes.estimate(service.estimate(run, tasks)),
            None if final else shapes.waiting(service.waiting(run, tasks)),
            self._comparison(run),
        )

    def _comparison(self, run: Run) -> present.Comparison | None:
        """Tell how far a compare run is; None for a run of one branch."""
        if run.baseline is None:
            return None
        tally = self._service.comparison(run.id)
        words = diffwords.verdict(tally.counts, run, tally.noisy)
        if run.reason is not None:
            words = f"{words}. {run.reason.text}"
        return present.Comparison(sum(tally.counts.values()), tally.left, words)

    def render(self, detail: RunDetail, run: Run, tasks: list[Task], steps: list[StepRecord]) -> str:
        """Write the live part for all viewers at once."""
        guess = detail.estimate
        head = present.head(run, tasks, steps, guess, detail.waiting, self._comparison(run))
        return self._templates.get_template("_live.html").render(
            head=head, failure=self.failure(run, tasks), links=links
        )

    def failure(self, run: Run, tasks: Sequence[Task]) -> Failure | None:
        """Find the failure to show first; None when there is none."""
        if run.state is RunState.DONE and not run.units.failed:
            return None
        if run.units.failed:
            found = self._service.units(run.id, state=UnitState.FAILED, limit=1)
            if found:
                unit = found[0]
                task = next((one for one in tasks if one.id == unit.task), None)
                return self._of(run, task, unit, unit.text, run.units.failed - 1)
        for state in (TaskState.FAILED, TaskState.ERRORED):
            task = next((one for one in tasks if one.state is state), None)
            if task is not None:
                return self._of(run, task, None, task.reason.text if task.reason else "", 0)
        return None

    def _of(self, run: Run, task: Task | None, unit: Unit | None, text: str, more: int) -> Failure:
        lines: list[tuple[int, str]] = []
        place = None
        if task is not None and task.log_size and task.finished_at is not None and run.removed is None:
            index = self._indexes.of(task.id)
            place = index.last(f"seatrial: {failed_line(unit.unit)}") if unit is not None else None
            first = -EXCERPT if place is None else max(1, place + AFTER + 1 - EXCERPT)
            window = index.window(first, EXCERPT)
            lines = [(line.n, plain(line.text)) for line in window.lines]
        where = task_title(task).capitalize() if task is not None else "Its task"
        return Failure(
            title=f"Unit {unit.unit} failed" if unit is not None else f"{where} did not end well",
            text=text,
            unit=unit,
            href=links.unit(run.id, unit.leg, unit.unit) if unit is not None else "",
            log=links.log_line(run.id, task.id, place or (lines[-1][0] if lines else None)) if task is not None else "",
            lines=lines,
            at_place=place is not None,
            more=more,
        )
