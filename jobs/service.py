"""What people can do with runs: submit, look, cancel, resume. The only way in for web, API and CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, Protocol

from jobs import two_databases
from jobs.acceptances import Acceptances
from jobs.accepting import Acceptance
from jobs.adapters.sql_runs import SqlRuns
from jobs.adapters.sql_store import Store
from jobs.new_run import NewLeg, NewRun
from jobs.outlook import Outlook
from jobs.pools import Pools
from jobs.projects import Preview, Projects
from jobs.run import Page, Run, RunFilter
from jobs.settings import ProjectSettings, Settings
from jobs.submission import SNAPSHOTS, Submission, SubmissionRefused
from jobs.views import Views
from runner.errors import Conflict, Gone, Problem, RequestError
from runner.model import BASELINE_AGAIN
from runner.ports import Mirror, Objects
from runner.spec import Spec

EVERYTHING = RunFilter()


class Doorbell(Protocol):
    """Tell a pool that there is work. Never raises: what was not heard is rung again by the sweeper."""

    def ring(self, pool: str) -> bool: ...


class Service(Projects, Views, Outlook, Acceptances, Pools):
    """The verbs of Seatrial, and its only writer for people; every error that a caller can mend is a RequestError.

    What is inherited: Projects, Views and Differences (the inside of a run), Outlook (estimates and explanations),
    Acceptances and Pools.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        objects: Objects,
        mirror: Callable[[str], Mirror],
        doorbell: Doorbell,
    ) -> None:
        Projects.__init__(self, settings, mirror)
        Views.__init__(self, store, objects)
        Outlook.__init__(self, settings, store)
        Acceptances.__init__(self, store, objects)
        Pools.__init__(self, settings, store)
        self._runs: SqlRuns = store.runs
        self._doorbell = doorbell

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
        source = self._source(submission, preview.spec, project)
        legs = [_leg("candidate", submission.ref, preview, source)]
        if submission.baseline_database is not None:
            legs.insert(0, _leg("baseline", submission.ref, preview, submission.baseline_database))
        elif submission.compares:
            ref, found = self._baseline(submission, project, preview)
            own = found.spec.database.source if found.spec.database is not None else None
            legs.insert(0, _leg("baseline", ref, found, source or own))
        if submission.compares and submission.options.get("noise", preview.spec.compare.noise) == 2:
            legs.append(replace(legs[0], name=BASELINE_AGAIN))  # the last one: its preparation can wait
        new = NewRun(
            project=submission.project,
            pool=project.pool,
            user=user,
            note=submission.note,
            priority=submission.priority,
            units_filter=submission.units or None,
            database=source,
            options=submission.options,
            legs=tuple(legs),
        )
        run, created = self._runs.add(new, key=idempotency_key, body=body)
        if created:
            self._doorbell.ring(run.pool)
        return run, created

    def _baseline(self, submission: Submission, project: ProjectSettings, candidate: Preview) -> tuple[str, Preview]:
        """Resolve what the candidate is compared with; gives the ref by which people know it."""
        ref = submission.baseline or project.default_baseline
        if ref is None:
            remedy = f"Name one, or set projects.{submission.project}.default_baseline in seatrial.toml."
            raise SubmissionRefused("There is no baseline to compare with.", field="baseline", remedy=remedy)
        with _about_the_baseline():
            found = self.preview(submission.project, ref)
        if submission.options.get("merge_base") is True:
            base = self.merge_base(submission.project, found.resolved.commit.sha, candidate.resolved.commit.sha)
            if base is None:
                remedy = "Leave options.merge_base out to compare with its tip."
                text = f"{submission.ref} and {ref} have no commit in common."
                raise SubmissionRefused(text, field="baseline", value=ref, remedy=remedy)
            with _about_the_baseline():
                found = self.preview(submission.project, base)
            ref = f"merge base with {ref}"
        return ref, found

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
            text = f"no such source in seatrial.toml; known: {known}. {two_databases.READ_ONCE}"
            problems.append(Problem("database", text, source))
        problems += two_databases.problems(submission.baseline_database, source, self.databases())
        if source is None:
            problems += [
                Problem(f"options.{name}", "this branch uses no database; leave it out", str(submission.options[name]))
                for name in SNAPSHOTS
                if submission.options.get(name) is not None
            ]
        if submission.units is not None and spec.units is None:
            problems.append(
                Problem("units", "this branch names no units, so none can be chosen", submission.units[:80])
            )
        if problems:
            raise SubmissionRefused("; ".join(map(str, problems)), problems=tuple(problems))

    def acceptances(self, project: str) -> list[Acceptance]:
        """List what was accepted in a project, newest first, also what expired or was withdrawn; raises NotFound."""
        found = super().acceptances(project) if project.isprintable() else []
        if not found:  # of a project that is not in the settings any more, they are still shown
            self.project(project)
        return found

    def run(self, run: int) -> Run:
        """Give a run; raises NotFound."""
        return self._runs.get(run)

    def run_with_outputs(self, run: int) -> Run:
        """Give a run whose outputs and log are there; raises NotFound, and Gone when they were removed."""
        found = self._runs.get(run)
        if found.removed is not None:
            again = f"To have them again, run the same commit from its beginning: seatrial rerun {run}"
            raise Gone(found.removed.text, field="run", value=str(run), remedy=again)
        return found

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

    def rerun(self, run: int, *, user: str, only: Literal["different"] | None = None) -> Run:
        """Run the same commit again from its beginning, as a new run; raises NotFound, Conflict.

        `only`: nothing but the units of a compare run that differ, failed or are missing.
        """
        old = self._runs.get(run)
        options = dict(old.options)
        if only is not None:
            if not self._store.compare.harmed(run):
                text = f"Run {run} has no unit that differs or failed."
                raise Conflict(text, field="only", value=only, remedy="Run it again as a whole.")
            options["only_of"] = run
        elif (of := options.get("only_of")) is not None and not self._store.compare.harmed(of):
            text = f"Run {run} repeats what differed in run {of}, of which nothing is recorded any more."
            raise Conflict(text, field="run", value=str(run), remedy="Submit the commit again.")
        if old.project not in self._settings.projects:
            raise Conflict(
                f"Project {old.project} is not in seatrial.toml any more.", field="project", value=old.project
            )
        sources = {old.database, *(leg.database for leg in old.legs)} - {None, *self._settings.databases}
        if sources:
            gone = str(min(filter(None, sources)))
            raise Conflict(
                f"Database {gone} is not in seatrial.toml any more.",
                field="database",
                value=gone,
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
            options=options,
            legs=self._runs.new_legs(run),
            parent=old.id,
        )
        made, _ = self._runs.add(new, key=None, body="")
        self._doorbell.ring(made.pool)
        return made


def _leg(name: str, ref: str, found: Preview, source: str | None) -> NewLeg:
    return NewLeg(
        name=name,
        ref=ref,
        commit=found.resolved.commit.sha,
        subject=found.resolved.commit.subject,
        author=found.resolved.commit.author,
        spec_source=found.spec_source,
        spec_text=found.spec_text,
        spec_digest=found.spec.digest(),
        database=None if found.spec.database is None else source,
        disk_limit=found.spec.workspace.limits.disk,
    )


@contextmanager
def _about_the_baseline() -> Iterator[None]:
    """Let an error about a ref name the field that it stood in."""
    try:
        yield
    except RequestError as error:
        error.field = "baseline" if error.field == "ref" else error.field
        raise
