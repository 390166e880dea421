"""What pages show of records: states in words with their reason, progress, buttons that say what they do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from jobs.attempts import Work
from jobs.run import Run, RunState, StepRecord, Task, TaskState, UnitCounts, Verdict, unlisted
from runner.model import TaskKind, UnitState
from web import legwords, links
from web.schemas import EstimateOut, WaitingOut
from web.words import about, duration, number, plural, task_title


@dataclass(frozen=True)
class Badge:
    """A state's look (icon and colour are chosen by `kind`) and its word."""

    kind: str
    word: str


BADGES = {
    RunState.QUEUED: Badge("queued", "Queued"),
    RunState.RUNNING: Badge("running", "Running"),
    RunState.INTERRUPTED: Badge("interrupted", "Interrupted"),
    RunState.DONE: Badge("passed", "Passed"),
    RunState.FAILED: Badge("failed", "Failed"),
    RunState.ERRORED: Badge("errored", "Errored"),
    RunState.CANCELLED: Badge("cancelled", "Cancelled"),
}
DIFFERENT = Badge("different", "Different")
CANCELLING = Badge("cancelled", "Cancelling")

UNIT_BADGES = {
    UnitState.TODO: Badge("queued", "To do"),
    UnitState.DONE: Badge("passed", "Done"),
    UnitState.FAILED: Badge("failed", "Failed"),
}

STEP_BADGES = {
    "running": Badge("running", "Running"),
    "done": Badge("passed", "Done"),
    "failed": Badge("failed", "Failed"),
    "ended": Badge("interrupted", "Cut off"),
}


def badge(run: Run) -> Badge:
    """Give a run's badge: its verdict when it is done."""
    if run.verdict is Verdict.DIFFERENT:
        return DIFFERENT
    if run.cancel_requested and not run.state.final:
        return CANCELLING
    return BADGES[run.state]


def task_badge(task: Task) -> Badge:
    return outcome_badge(task.state)


def step_badge(state: str) -> Badge:
    return STEP_BADGES.get(state, Badge("queued", state))


def outcome_badge(outcome: str | None) -> Badge:
    """Give the badge of how an attempt ended; None while it goes on."""
    if outcome is None:
        return BADGES[RunState.RUNNING]
    if outcome == TaskState.DONE:
        return Badge("passed", "Done")
    return BADGES[RunState(outcome)]


@dataclass(frozen=True)
class Progress:
    """A bar of units: parts of 100, and the same in words. `total` is None until the list is known."""

    total: int | None
    done: int
    failed: int
    left: int
    done_share: float
    failed_share: float
    words: str


def progress(units: UnitCounts, legs: int = 1, unlisted: Sequence[str] = ()) -> Progress:
    """Give the bar of some units; with several `legs` each counts on each of them.

    `unlisted`: the legs that have yet to list theirs. The bar takes it that each will list as many as the others.
    """
    total = units.total
    if total is None or len(unlisted) >= legs:
        return Progress(None, 0, 0, 0, 0.0, 0.0, "units not listed yet")
    share = 100.0 / max(1, total) * (1 - len(unlisted) / legs)
    left = max(0, total - units.done - units.failed)
    if unlisted:
        those = " and the ".join(legwords.title(name) for name in unlisted)
        words = f"{plural(units.done, 'unit')} finished, those of the {those} not listed yet"
    else:
        words = f"{number(units.done)} of {plural(total, 'unit')}" + (f" on {legs} legs" if legs > 1 else "")
    if units.failed:
        words += f", {number(units.failed)} failed"
    return Progress(total, units.done, units.failed, left, units.done * share, units.failed * share, words)


@dataclass(frozen=True)
class Button:
    """A button of a form that stands elsewhere on the page; its label says what will happen."""

    form: str
    label: str
    primary: bool = False
    confirm: str | None = None


def buttons(run: Run, *, listed: bool = True) -> list[Button]:
    """Give a run's buttons. `listed`: all its legs have listed their units."""
    found = []
    left = progress(run.units).left + run.units.failed
    known = listed and run.units.total is not None
    todo = plural(left, "unit") + " left" if known else "begins with the preparation"
    if run.state is RunState.INTERRUPTED:
        found.append(Button("resume", f"Resume now — {todo}", primary=True))
    elif run.state in (RunState.FAILED, RunState.ERRORED, RunState.CANCELLED) and run.removed is None:
        found.append(Button("resume", f"Resume — {todo}", primary=True))
    if not run.state.final and not run.cancel_requested:
        safe = plural(run.units.done, "finished unit")
        ask = f"Cancel run {run.id}? Its {safe} stay, and it can be resumed."
        found.append(Button("cancel", "Cancel run", confirm=ask))
    if run.state.final:
        found.append(Button("rerun", f"Run {links.commit(run.candidate.commit)} again"))
    return found


def because(run: Run, held: str, doing: str = "", verdict: str = "") -> str:
    """Say in one sentence why a run stands where it stands.

    `held`: what it waits for, `doing`: what its tasks do now, `verdict`: what its comparison came to.
    """
    units = run.units
    if run.state is RunState.INTERRUPTED:
        return held or (run.reason.text if run.reason else "Something outside of the branch got in the way.")
    if run.cancel_requested and not run.state.final:
        return held or "waiting for its containers to end."
    if run.state is RunState.QUEUED:
        return held or "a worker is about to take it."
    if run.state is RunState.RUNNING:
        return held or doing or "preparing the workspace"
    if run.state is RunState.DONE:
        if run.baseline is not None:
            return verdict or "the candidate's results were compared with the baseline's."
        return f"all {plural(units.total or 0, 'unit')} finished" if units.total != 1 else "its unit finished"
    if run.reason is not None:
        return run.reason.text
    return ""


def span(run: Run, now: datetime | None = None) -> float | None:
    """Give how many seconds a run has taken since it began."""
    if run.started_at is None:
        return None
    return ((run.finished_at or now or datetime.now(UTC)) - run.started_at).total_seconds()


def differ(run: Run) -> str:
    """Say how many units of a compare run differ by now."""
    words = f"{number(run.units_different)} {'differs' if run.units_different == 1 else 'differ'}"
    return f"{words}, {number(run.units_accepted)} accepted" if run.units_accepted else words


@dataclass(frozen=True)
class Row:
    """A line of the list of runs. `differ`: how many units do, in words; empty when nothing was compared."""

    run: Run
    badge: Badge
    because: str
    differ: str
    progress: Progress
    took: str
    left: str
    href: str


def row(run: Run, now: datetime | None = None) -> Row:
    final = run.state.final
    return Row(
        run=run,
        badge=badge(run),
        # What the bar says already is not said twice.
        because=""
        if run.state in (RunState.RUNNING, RunState.DONE) and not run.cancel_requested
        else because(run, "waiting for a worker" if run.state is RunState.QUEUED and not run.cancel_requested else ""),
        differ=differ(run) if run.units_different else "",
        progress=progress(run.units, len(run.legs)),
        took=duration(span(run, now)),
        left="" if final else "so far",
        href=links.run(run.id),
    )


@dataclass(frozen=True)
class StepLine:
    name: str
    badge: Badge
    took: str
    detail: str


@dataclass(frozen=True)
class TaskLine:
    """A task with its steps."""

    task: Task
    title: str
    badge: Badge
    took: str
    progress: Progress
    steps: list[StepLine]
    log: str


def task_lines(run: Run, tasks: Sequence[Task], steps: Sequence[StepRecord]) -> list[TaskLine]:
    by_task: dict[int, list[StepRecord]] = {}
    for step in steps:
        by_task.setdefault(step.task, []).append(step)
    return [_task_line(run, task, by_task.get(task.id, [])) for task in tasks]


def _task_line(run: Run, task: Task, steps: Sequence[StepRecord]) -> TaskLine:
    last = max((step.attempt for step in steps), default=0)
    took = None
    if task.started_at is not None:
        took = ((task.finished_at or datetime.now(UTC)) - task.started_at).total_seconds()
    return TaskLine(
        task=task,
        title=task_title(task),
        badge=task_badge(task),
        took=duration(took) if task.state not in (TaskState.QUEUED, TaskState.INTERRUPTED) else "",
        progress=progress(UnitCounts(task.units_total, task.units_done, task.units_failed)),
        steps=[
            StepLine(step.name, step_badge(step.state), duration(step.seconds), step.detail)
            for step in steps
            if step.attempt == last
        ],
        log=links.run(run.id, tab="log", task=task.id),
    )


def doing(lines: Sequence[TaskLine]) -> str:
    """Say what the tasks do now: the step of a preparation, or how many batches run."""
    running = [line for line in lines if line.task.state is TaskState.RUNNING]
    if not running:
        return "waiting for a worker to go on"
    first = running[0]
    if first.task.kind is TaskKind.PREPARE:
        step = next((step.name for step in first.steps if step.badge.kind == "running"), "")
        return f"preparing: {step}" if step else "preparing the workspace"
    batches = sum(1 for line in lines if line.task.kind is TaskKind.VERIFY)
    names = ", ".join(line.title for line in running) if len(running) <= 3 else plural(len(running), "batch")
    return f"{names} of {batches}"


@dataclass(frozen=True)
class Tab:
    name: str
    label: str
    count: str
    href: str


def tabs(run: Run) -> list[Tab]:
    counts = {
        "differences": number(run.units_different),
        "units": number(run.units.total) if run.units.total is not None else "",
        "attempts": number(run.attempts) if run.attempts else "",
        "files": "",
    }
    labels = {
        "summary": "Summary",
        "differences": "Differences",
        "units": "Units",
        "log": "Log",
        "attempts": "Attempts",
        "files": "Files",
    }
    return [
        Tab(name, label, counts.get(name, ""), links.run(run.id, tab=None if name == "summary" else name))
        for name, label in labels.items()
        if name != "differences" or run.baseline is not None
    ]


@dataclass(frozen=True)
class Banner:
    """What stands below the headline while a run is interrupted: when it goes on, and what that costs.

    `retry_at`: None when it does not go on by itself, for the reason that the headline gives.
    """

    retry_at: datetime | None
    text: str


def banner(run: Run, tasks: Sequence[Task], held: WaitingOut | None = None) -> Banner | None:
    """Say when an interrupted run goes on, with which attempt, and what is not done again."""
    waiting = [task for task in tasks if task.state is TaskState.INTERRUPTED]
    if run.state is not RunState.INTERRUPTED or not waiting:
        return None
    first = min(waiting, key=lambda task: task.due_at)
    before = f"; attempt {first.attempt} was on {first.host}" if first.host else ""
    by_itself = held is None or held.code != "no_sweeper"
    begin = "That will be" if by_itself else '"Resume now" begins'
    text = f"{begin} attempt {first.attempt + 1} of {task_title(first)}{before}."
    if len(waiting) > 1:
        text += (
            f" {plural(len(waiting) - 1, 'more task')} {'waits' if len(waiting) == 2 else 'wait'} for a next try too."
        )
    if first.kind is TaskKind.PREPARE:
        text += " The preparation begins again from its start."
    elif run.units.total:
        text += f" {number(run.units.done)} of {plural(run.units.total, 'unit')} are safe: only what was in flight is repeated."
    return Banner(first.due_at if by_itself else None, text)


def work(found: Work, task: Task | None) -> str:
    """Say what an attempt repeated, and what it did not."""
    if found.adopted:
        words = ["took over the container, which had gone on: nothing repeated"]
    elif found.begun_again and task is not None and task.kind is TaskKind.PREPARE:
        words = ["began the preparation again"]
    elif found.begun_again:
        words = ["what was in flight began again"]
    else:
        words = []
    if found.kept:
        words.insert(0, f"{plural(found.kept, 'finished unit')} kept")
    if found.void:
        words.append(f"{plural(found.void, 'unit')} taken back and repeated")
    if good := found.finished - found.failed:
        words.append(f"finished {plural(good, 'unit')}")
    if found.failed:
        words.append(f"{plural(found.failed, 'unit')} failed")
    return "; ".join(words)


@dataclass(frozen=True)
class Comparison:
    """How far the units of a compare run are compared, and what that comes to in one sentence."""

    compared: int
    left: int
    verdict: str


@dataclass(frozen=True)
class Head:
    """The part of a run's page that answers "is it all right?"."""

    run: Run
    badge: Badge
    because: str
    names_runs: bool
    banner: Banner | None
    progress: Progress
    facts: list[str]
    basis: str
    buttons: list[Button]
    tabs: list[Tab]
    title: str
    preparations: list[TaskLine]
    batches: list[TaskLine]


def head(
    run: Run,
    tasks: Sequence[Task],
    steps: Sequence[StepRecord],
    estimate: EstimateOut | None,
    held: WaitingOut | None,
    comparison: Comparison | None = None,
) -> Head:
    shown = badge(run)
    ahead = unlisted(run, tasks) if len(run.legs) > 1 else []
    bar = progress(run.units, len(run.legs), ahead)
    facts = []
    if comparison is not None and not run.state.final:
        facts += [f"{number(comparison.compared)} compared", differ(run)]
    if bar.total is not None and not ahead and not run.state.final:
        facts.append(f"{plural(bar.left, 'unit')} left")
    if estimate is not None and estimate.units_per_minute:
        facts.append(f"{estimate.units_per_minute:.0f}/min" if estimate.units_per_minute >= 1 else "under 1/min")
    if estimate is not None and estimate.seconds_left is not None:
        roughly = about(estimate.seconds_left)
        facts.append(f"{roughly} left" if roughly.startswith("a few") else f"about {roughly} left")
    took = span(run)
    if took is not None:
        facts.append(f"took {duration(took)}" if run.state.final else f"{duration(took)} so far")
    if run.attempts > len(tasks):
        facts.append(plural(run.attempts, "attempt"))
    percent = f" {int(bar.done_share)} %" if run.state is RunState.RUNNING and bar.total and not ahead else ""
    lines = task_lines(run, tasks, steps)
    # Of the next try the banner tells.
    words = held.text if held is not None and held.code != "backing_off" else ""
    return Head(
        run=run,
        badge=shown,
        because=because(run, words, doing(lines), comparison.verdict if comparison else ""),
        names_runs=held is not None and run.state is not RunState.INTERRUPTED,
        banner=banner(run, tasks, held),
        progress=bar,
        facts=facts,
        basis=estimate.basis if estimate is not None and estimate.seconds_left is not None else "",
        buttons=buttons(run, listed=not ahead),
        tabs=tabs(run),
        title=f"{shown.word}{percent} · run {run.id} · {run.candidate.ref}",
        preparations=[line for line in lines if line.task.kind is TaskKind.PREPARE],
        batches=[line for line in lines if line.task.kind is TaskKind.VERIFY],
    )
