"""What people can do with runs: submit, look, cancel, resume. The only way in for web, API and CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

from jobs.adapters.sql_inside import Chunks, SqlInside
from jobs.adapters.sql_runs import NewLeg, NewRun, SqlRuns
from jobs.adapters.sql_store import Store
from jobs.run import (
    Attempt,
    Event,
    LogChunk,
    Page,
    Run,
    RunFilter,
    RunState,
    StepRecord,
    Task,
    TaskState,
    Unit,
    UnitCounts,
    Worker,
)
from jobs.settings import ProjectSettings, Settings
from jobs.submission import Submission, SubmissionRefused
from runner.errors import Conflict, NotFound, Problem, RequestError, SpecError
from runner.model import Output, Ref, Resolved, UnitState
from runner.ports import Mirror, Objects
from runner.spec import Spec, parse_spec

SPEC_FILE = "seatrial.yml"
LOG_WINDOW = 65_536
EVERYTHING = RunFilter()
UNITS_FOR_A_PACE = 20  # with fewer of its own, a run's pace is guessed better from the last run


class Doorbell(Protocol):
    """Tell a pool that there is work. Never raises: what was not heard is rung again by the sweeper."""

    def ring(self, pool: str) -> bool: ...


class SpecRefused(RequestError):
    """The commit's seatrial.yml is not valid."""

    code = "spec_invalid"


@dataclass(frozen=True)
class ProjectInfo:
    """A project as people may see it: no credentials."""

    name: str
    repository: str
    default_baseline: str | None
    pool: str
    database: str | None


@dataclass(frozen=True)
class Preview:
    """What a submission of this ref would run."""

    resolved: Resolved
    spec: Spec
    spec_source: str
    spec_text: str


@dataclass(frozen=True)
class Estimate:
    """How long it will take: seconds left, units a minute, and where the figure comes from."""

    seconds_left: float | None
    units_per_minute: float | None
    basis: str


@dataclass(frozen=True)
class PoolStatus:
    """A pool, its slots and its load."""

    name: str
    slots: int
    workers: tuple[Worker, ...]
    queued: int
    running: int


@dataclass(frozen=True)
class Changes:
    """What happened in a run since a cursor."""

    run: Run
    events: tuple[Event, ...]
    logs: tuple[LogChunk, ...]
    steps: tuple[StepRecord, ...]


def _default_spec(project: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecRefused(
            f"The default specification of project {project} cannot be read: {error.strerror}.",
            field="ref",
            value=str(file),
            remedy=f"Mend projects.{project}.spec in seatrial.toml.",
        ) from None


class Service:
    """The verbs of Seatrial; every error that a caller can mend is a RequestError."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        objects: Objects,
        mirror: Callable[[str], Mirror],
        doorbell: Doorbell,
    ) -> None:
        self._settings = settings
        self._store = store
        self._runs: SqlRuns = store.runs
        self._inside: SqlInside = store.inside
        self._objects = objects
        self._mirror = mirror
        self._doorbell = doorbell
        # A commit's file never changes, and reading it costs a process of git's.
        self._spec_file = lru_cache(512)(lambda project, sha: mirror(project).read_file(sha, SPEC_FILE))
        self._parsed = lru_cache(512)(lambda text, source: parse_spec(text, source=source))
        self._last_pace = lru_cache(512)(lambda project, run: store.ledger.last_pace(project, before=run))

    # ---- projects and refs ------------------------------------------------------------------------------

    def projects(self) -> list[ProjectInfo]:
        """List the projects of seatrial.toml."""
        return [self._info(name) for name in sorted(self._settings.projects)]

    def project(self, name: str) -> ProjectInfo:
        """Describe a project; raises NotFound."""
        self._project(name)
        return self._info(name)

    def _info(self, name: str) -> ProjectInfo:
        project = self._settings.projects[name]
        return ProjectInfo(name, project.repository, project.default_baseline, project.pool, project.database)

    def _project(self, name: str) -> ProjectSettings:
        try:
            return self._settings.projects[name]
        except KeyError:
            known = ", ".join(sorted(self._settings.projects)) or "none yet"
            raise NotFound(
                f"There is no project {name!r}.",
                field="project",
                value=name[:80],
                remedy=f"Known projects: {known}. Add one to seatrial.toml.",
            ) from None

    def databases(self) -> list[str]:
        """List the names of the database sources."""
        return sorted(self._settings.databases)

    def refs(self, project: str, prefix: str = "", limit: int = 50) -> list[Ref]:
        """List what the mirror knows, newest first, without asking the remote."""
        self._project(project)
        return self._mirror(project).refs(prefix, limit=limit)

    def preview(self, project: str, ref: str) -> Preview:
        """Resolve a ref at the remote and read its seatrial.yml; raises RequestError."""
        settings = self._project(project)
        resolved = self._mirror(project).resolve(ref)
        text: str | bytes | None = self._spec_file(project, resolved.commit.sha)
        source = f"{SPEC_FILE} of {resolved.commit.sha[:10]}"
        if text is None and settings.spec is not None:
            text, source = _default_spec(project, settings.spec), f"the project's default ({settings.spec.name})"
        if text is None:
            raise SpecRefused(
                f"{ref} has no {SPEC_FILE}, and project {project} has no default for it.",
                field="ref",
                value=ref,
                remedy=f"Commit a {SPEC_FILE} at its root, or set projects.{project}.spec in seatrial.toml.",
            )
        try:
            spec = self._parsed(text, source)
        except SpecError as error:
            raise SpecRefused(
                f"{source} is not valid.",
                field="ref",
                value=ref,
                remedy=f"Mend it (`seatrial spec check {SPEC_FILE}` tells the same) and submit again.",
                problems=error.problems,
            ) from None
        return Preview(resolved, spec, source, text if isinstance(text, str) else text.decode("utf-8"))

    # ---- runs -------------------------------------------------------------------------------------------

    def submit(self, submission: Submission, *, user: str, idempotency_key: str | None = None) -> tuple[Run, bool]:
        """Accept a run: pinned to commits, its specification read. Gives the run, and whether it is new.

        The same `idempotency_key` with the same submission gives the same run for 24 hours. Raises RequestError.
        """
        submission.check()
        body = submission.body()
        if idempotency_key is not None:
            known = self._runs.known(user, idempotency_key, body)
            if known is not None:
                return known, False
        project = self._project(submission.project)
        preview = self.preview(submission.project, submission.ref)
        self._check_database(submission, preview.spec, project)
        leg = NewLeg(
            name="candidate",
            ref=submission.ref,
            commit=preview.resolved.commit.sha,
            subject=preview.resolved.commit.subject,
            author=preview.resolved.commit.author,
            spec_source=preview.spec_source,
            spec_text=preview.spec_text,
            spec_digest=preview.spec.digest(),
        )
        new = NewRun(
            project=submission.project,
            pool=project.pool,
            user=user,
            note=submission.note,
            priority=submission.priority,
            units_filter=submission.units or None,
            database=self._source(submission, preview.spec, project),
            options=submission.options,
            legs=(leg,),
        )
        run, created = self._runs.add(new, key=idempotency_key, body=body)
        if created:
            self._doorbell.ring(run.pool)
        return run, created

    def _source(self, submission: Submission, spec: Spec, project: ProjectSettings) -> str | None:
        if spec.database is None:
            return None
        return submission.database or project.database or spec.database.source

    def _check_database(self, submission: Submission, spec: Spec, project: ProjectSettings) -> None:
        problems = []
        if submission.database is not None and spec.database is None:
            problems.append(Problem("database", "this branch uses none; leave it out", submission.database))
        source = self._source(submission, spec, project)
        if source is not None and source not in self._settings.databases:
            known = ", ".join(self.databases()) or "none yet"
            problems.append(Problem("database", f"no such source in seatrial.toml; known: {known}", source))
        if submission.units is not None and spec.units is None:
            problems.append(
                Problem("units", "this branch names no units, so none can be chosen", submission.units[:80])
            )
        if problems:
            raise SubmissionRefused("; ".join(map(str, problems)), problems=tuple(problems))

    def run(self, run: int) -> Run:
        """Give a run; raises NotFound."""
        return self._runs.get(run)

    def runs(
        self,
        wanted: RunFilter = EVERYTHING,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> Page:
        """Give a page of runs, newest first."""
        return self._runs.page(wanted, before=before, after=after, limit=max(1, min(limit, 500)))

    def count_newer(self, wanted: RunFilter, after: int) -> int:
        """Count the runs that came after a list was shown, up to 100."""
        return self._runs.count_newer(wanted, after)

    def cancel(self, run: int, *, user: str) -> Run:
        """Ask a run to end; raises NotFound, Conflict."""
        return self._runs.cancel(run, user)

    def resume(self, run: int, *, user: str) -> Run:
        """Go on at the first unfinished unit; raises NotFound, Conflict."""
        resumed = self._runs.resume(run, user)
        self._doorbell.ring(resumed.pool)
        return resumed

    def rerun(self, run: int, *, user: str) -> Run:
        """Run the same commit again from its beginning, as a new run; raises NotFound, Conflict."""
        old = self._runs.get(run)
        if old.project not in self._settings.projects:
            raise Conflict(
                f"Project {old.project} is not in seatrial.toml any more.", field="project", value=old.project
            )
        if old.database is not None and old.database not in self._settings.databases:
            raise Conflict(
                f"Database {old.database} is not in seatrial.toml any more.",
                field="database",
                value=old.database,
                remedy="Submit the commit again and choose another one.",
            )
        new = NewRun(
            project=old.project,
            pool=self._settings.projects[old.project].pool,
            user=user,
            note=old.note,
            priority=old.priority,
            units_filter=old.units_filter,
            database=old.database,
            options=old.options,
            legs=self._runs.new_legs(run),
            parent=old.id,
        )
        made, _ = self._runs.add(new, key=None, body="")
        self._doorbell.ring(made.pool)
        return made

    # ---- inside a run -----------------------------------------------------------------------------------

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

    # ---- logs and what is live --------------------------------------------------------------------------

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

    # ---- in words ---------------------------------------------------------------------------------------

    def estimate(self, run: int) -> Estimate | None:
        """Estimate what is left: from this run's own units, or from the last run's while it has too few."""
        found = self._runs.get(run)
        if found.state.final or found.units.total is None:
            return None
        finished, seconds = self._inside.unit_seconds(run)
        last = self._last_pace(found.project, run) if finished < UNITS_FOR_A_PACE else None
        if last is not None:
            each, basis = last[1], f"from run {last[0]}"
        elif finished and seconds:
            each, basis = seconds / finished, "from this run's finished units"
        else:
            return None
        left = found.units.total - found.units.done - found.units.failed
        parallel = max(1, sum(1 for task in self._inside.tasks(run) if task.state is TaskState.RUNNING))
        return Estimate(left * each / parallel, 60.0 * parallel / each if each else None, basis)

    def explain(self, run: int) -> str:
        """Answer "why is it not running?"; empty when it runs or has ended."""
        found = self._runs.get(run)
        if found.state.final or found.state is RunState.RUNNING:
            return ""
        if found.state is RunState.INTERRUPTED:
            due = [t.due_at for t in self._inside.tasks(run) if t.state is TaskState.INTERRUPTED]
            when = f" The next try is at {min(due):%H:%M:%S} UTC." if due else ""
            return (found.reason.text if found.reason else "Interrupted.") + when
        pool = next((p for p in self.capacity() if p.name == found.pool), None)
        if pool is None or not pool.workers:
            return f"No worker of pool {found.pool} is running. Start one: seatrial worker --pool {found.pool}"
        busy = sum(1 for worker in pool.workers if worker.task is not None)
        if busy >= len(pool.workers):
            slots = f"{busy} of {len(pool.workers)} are busy, {pool.queued} queued"
            return f"Waiting for a slot of pool {found.pool}: {slots}."
        return "A worker is about to take it."

    def capacity(self) -> list[PoolStatus]:
        """List the pools with their workers and load."""
        queue = self._inside.queue()
        known = self._store.workers.workers()
        return [
            PoolStatus(
                name=name,
                slots=pool.slots,
                workers=tuple(worker for worker in known if worker.pool == name),
                queued=queue.get(name, {}).get("queued", 0) + queue.get(name, {}).get("interrupted", 0),
                running=queue.get(name, {}).get("running", 0),
            )
            for name, pool in sorted(self._settings.pools.items())
        ]

    def healthy(self) -> list[str]:
        """Tell what is wrong, in words; empty when all is well."""
        problems = self._store.problems()
        if not problems and not self._store.workers.workers():
            problems.append("No worker is running: nothing will be verified. Start one: seatrial worker")
        return problems
