"""Error families by responsibility; each class has a stable `code`, and its docstring is its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input: where it stands, what was given, and what to do about it."""

    key: str
    message: str
    value: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        given = f" (given: {self.value})" if self.value is not None else ""
        return f"{place}{self.key}: {self.message}{given}"


class SeatrialError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, text: str | None = None) -> None:
        self.text = text or (type(self).__doc__ or "").split("\n", 1)[0]
        super().__init__(self.text)


# ---- the caller's fault: refused before anything is accepted --------------------------------------------


class RequestError(SeatrialError):
    """The request cannot be accepted."""

    code = "bad_request"
    status: ClassVar[int] = 422

    def __init__(
        self,
        text: str | None = None,
        *,
        field: str | None = None,
        value: str | None = None,
        remedy: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(text)
        self.field = field
        self.value = value
        self.remedy = remedy
        self.problems = problems


class NotFound(RequestError):
    """There is no such thing."""

    code = "not_found"
    status = 404


class Gone(NotFound):
    """It was removed when its time was over."""

    code = "removed"
    status = 410


class Conflict(RequestError):
    """The state that it is in does not allow that."""

    code = "conflict"
    status = 409


class RefNotFound(NotFound):
    """The repository has no branch, tag, pull request or commit of that name."""

    code = "ref_not_found"
    status = 404


class RefRefused(RequestError):
    """That is not a name that a git ref can have."""

    code = "ref_refused"


class RemoteUnavailable(RequestError):
    """The repository's remote did not answer, so the ref cannot be pinned to its present commit."""

    code = "remote_unavailable"
    status = 503


# ---- the branch's fault: a verdict ------------------------------------------------------------------------


class BranchError(SeatrialError):
    """The branch cannot be verified as it is."""

    code = "branch"

    def __init__(self, text: str | None = None, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(text)
        self.problems = problems


class SpecError(BranchError):
    """seatrial.yml is not valid."""

    code = "spec_invalid"


class UnitsError(BranchError):
    """The list of units is not valid."""

    code = "units_invalid"


class TreeTooLarge(BranchError):
    """The commit's tree is larger than the limit."""

    code = "tree_too_large"


class TreeRefused(BranchError):
    """The commit's tree holds something that cannot be laid out."""

    code = "tree_refused"


class ImageBuildFailed(BranchError):
    """The workspace image could not be built."""

    code = "image_build_failed"


class ImageMissing(BranchError):
    """The registry has no such image, or does not give it to this machine."""

    code = "image_missing"


class ImageUnusable(BranchError):
    """The workspace image cannot run a shell."""

    code = "image_unusable"


class StepFailed(BranchError):
    """A command of the preparation ended with an error."""

    code = "step_failed"


class UnitsFailed(BranchError):
    """Some units failed."""

    code = "units_failed"


class Incomplete(BranchError):
    """The script ended without finishing all of its units."""

    code = "incomplete"


class OutOfMemory(BranchError):
    """The workspace ran out of memory."""

    code = "out_of_memory"


class TimedOut(BranchError):
    """The workspace did not end within its time."""

    code = "timed_out"


class Stalled(BranchError):
    """The workspace printed nothing and finished nothing for too long."""

    code = "stalled"


class LimitExceeded(BranchError):
    """The workspace passed one of its limits."""

    code = "limit_exceeded"


class OutputRefused(BranchError):
    """An output is not a regular file inside the output directory."""

    code = "output_refused"


# ---- the world's fault: an interruption, never a verdict -------------------------------------------------


class InfraError(SeatrialError):
    """Something outside of the branch failed."""

    code = "infrastructure"


class EngineUnavailable(InfraError):
    """The Docker engine does not answer."""

    code = "engine_unavailable"


class EngineRefused(EngineUnavailable):
    """The Docker engine answered with an error."""

    code = "engine_refused"


class RegistryUnavailable(InfraError):
    """The registry of the workspace's image does not answer."""

    code = "registry_unavailable"


class ImageGone(InfraError):
    """An image that a container needs is not on this host any more."""

    code = "image_gone"


class ContainerLost(InfraError):
    """The workspace's container vanished or was killed from outside."""

    code = "container_lost"


class ContainerFoundDead(ContainerLost):
    """It was lost before this attempt took it over: that is the end of the attempt before, and no second mark."""


class HostOutOfMemory(InfraError):
    """The host, or what it sets aside for workspaces, ran out of memory."""

    code = "host_out_of_memory"


class ContainerForeign(InfraError):
    """Another container stands under the name of this one."""

    code = "container_foreign"


class DatabaseUnavailable(InfraError):
    """The verification database does not answer."""

    code = "database_unavailable"


class DatabaseLost(InfraError):
    """The connection between the door and the verification database dropped."""

    code = "database_lost"


class DatabaseRefused(InfraError):
    """The database may not be used for verification."""

    code = "database_refused"


class BaseGone(DatabaseRefused):
    """The base that the other leg was made from is gone."""

    code = "base_gone"


class SnapshotGone(DatabaseRefused):
    """The source has no snapshot of the name that the run asks for."""

    code = "snapshot_gone"


class BaseReplaced(InfraError):
    """The legs were made from different bases."""

    code = "base_replaced"


class OutputsGone(InfraError):
    """Outputs that were to be taken over from an earlier run were removed meanwhile."""

    code = "outputs_gone"


class SourceInUse(DatabaseRefused):
    """Sessions are open on the database, so it cannot be cloned."""

    code = "source_in_use"


class RepositoryUnavailable(InfraError):
    """The commit could not be fetched from the repository."""

    code = "repository_unavailable"


class DiskFull(InfraError):
    """The host's disk is full."""

    code = "disk_full"


class StoreUnavailable(InfraError):
    """The store of records does not answer."""

    code = "store_unavailable"


class ResumeRequested(InfraError):
    """The script asked to be resumed (exit 75)."""

    code = "resume_requested"


class Drained(InfraError):
    """The worker was asked to stop, and handed the task over."""

    code = "drained"


# ---- not a fault: the task is no longer ours --------------------------------------------------------------


class Fenced(SeatrialError):
    """Another attempt holds this task now; nothing more may be written for it."""

    code = "fenced"


class Cancelled(SeatrialError):
    """The run was cancelled."""

    code = "cancelled"
