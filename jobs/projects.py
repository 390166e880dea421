"""What can be asked about projects, their refs and their specifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jobs.settings import ProjectSettings, Settings
from runner.errors import NotFound, RequestError, SpecError
from runner.model import Ref, Resolved
from runner.ports import Mirror
from runner.spec import Spec, parse_spec

SPEC_FILE = "seatrial.yml"


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


class Projects:
    """The projects of the settings, and what their repositories hold."""

    def __init__(self, settings: Settings, mirror: Callable[[str], Mirror]) -> None:
        self._settings = settings
        self._mirror = mirror
        # A commit's file never changes, and reading it costs a process of git's.
        self._spec_file = lru_cache(512)(lambda project, sha: mirror(project).read_file(sha, SPEC_FILE))
        self._parsed = lru_cache(512)(lambda text, source: parse_spec(text, source=source))

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

    def merge_base(self, project: str, one: str, other: str) -> str | None:
        """Give the commit at which two commits that are here parted; None when they have nothing in common."""
        self._project(project)
        return self._mirror(project).merge_base(one, other)

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
