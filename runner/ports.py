"""What the runner needs from the world; each contract states order, idempotence and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from runner.model import (
    Base,
    Clone,
    Commit,
    Container,
    ContainerState,
    Image,
    Login,
    Origin,
    Output,
    Reason,
    Ref,
    Resolved,
    UnitResult,
)
from runner.quota import Used


class Mirror(Protocol):
    """One project's bare mirror. Safe to use from many threads and processes at once."""

    def resolve(self, ref: str, *, timeout: float = 10.0) -> Resolved:
        """Ask the remote what `ref` stands for now, fetch that commit, and pin it.

        `ref`: a branch, tag, full or abbreviated commit, or `refs/pull/N/head`, by exact name; never parsed as
        an expression. Raises RefRefused (hostile or impossible name), RefNotFound, RemoteUnavailable (within
        `timeout` seconds; never a stale answer). A full commit that the mirror has already needs no remote.
        """
        ...

    def refs(self, prefix: str = "", *, limit: int = 50) -> list[Ref]:
        """List the refs that the mirror knows whose name contains `prefix`, most recent commits first; no network."""
        ...

    def commit(self, sha: str) -> Commit:
        """Describe a commit that the mirror has; raises RefNotFound."""
        ...

    def merge_base(self, one: str, other: str) -> str | None:
        """Give the commit at which two commits that are here parted; None when they have nothing in common."""
        ...

    def ensure(self, sha: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Have the commit's objects here; fetch when they are not. Raises RepositoryUnavailable.

        `check` is called every 0.2 s at least while this waits for another fetch, or fetches: what it raises ends the
        fetch with all its processes, leaves nothing half-made, and is passed on.
        """
        ...

    def read_file(self, sha: str, path: str, *, limit: int = 262_144) -> bytes | None:
        """Give a regular file of the commit, or None when there is none; raises TreeRefused above `limit` bytes."""
        ...

    def export(self, sha: str, target: Path, *, check: Callable[[], None] = lambda: None) -> None:
        """Lay the commit's files out in the empty directory `target`; no hook, filter or submodule runs.

        Raises TreeTooLarge or TreeRefused (the branch), RepositoryUnavailable or DiskFull (the world). `check`: as for
        `ensure`, while files are listed and written, and from any thread; `target` is empty again after what it raises.
        """
        ...


class Trees(Protocol):
    """The host's cache of exported trees.

    `check` is called every 0.2 s at least while a call waits for another one that makes the same tree, for a fetch, or
    for the tree itself, from any thread: what it raises ends the call, leaves nothing half-made, and is passed on.
    """

    def get(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> Path:
        """Give the read-only tree of a commit, exporting it first when it is not cached; safe to call at once."""
        ...

    def layers(self, project: str, sha: str, *, check: Callable[[], None] = lambda: None) -> tuple[Path, ...]:
        """Give it as the lower layers of an overlay, the top one first: one whole tree, or what a commit has otherwise
        than another one and the tree of that. Quicker than get for a commit near one that was used before."""
        ...


class Watch(Protocol):
    """The processes of one container, seen without its engine."""

    def gone(self, seconds: float) -> bool:
        """Wait so long at most; tell whether all of them are gone, so that nothing of the container writes any more."""
        ...

    def look(self) -> None:
        """See how far they are from the container's limit of memory; to be called again and again while it runs."""
        ...

    def kept_its_memory(self) -> bool:
        """Tell, after the end, whether the container certainly did not reach its own limit of memory; False in doubt."""
        ...

    def close(self) -> None:
        """Let go of what it holds; safe to call twice."""
        ...


class Engine(Protocol):
    """A Docker engine. Every method raises EngineUnavailable when it does not answer."""

    def create(self, container: Container) -> ContainerState:
        """Create, or adopt the one that stands under this name with the same labels (an answer that was lost).

        Raises ContainerForeign when another one has the name, ImageGone when the image is not on this host, DiskFull
        when the engine has no room for it.
        """
        ...

    def start(self, name: str) -> None:
        """Start; safe to call on one that runs.

        Raises ContainerLost when it is gone, ImageUnusable when its command cannot be executed, DiskFull as `create`.
        """
        ...

    def inspect(self, name: str) -> ContainerState | None:
        """Tell what it is doing, or None when there is none."""
        ...

    def watch(self, state: ContainerState) -> Watch | None:
        """Watch the processes of a container that was inspected; None where only the engine can tell of them."""
        ...

    def stop(self, name: str, *, grace: float) -> None:
        """Ask to stop, kill after `grace` seconds; safe to call on one that ended, never started or is gone."""
        ...

    def remove(self, name: str) -> None:
        """Kill and remove with its anonymous volumes; safe to call on one that is gone."""
        ...

    def find(self, **labels: str) -> list[ContainerState]:
        """List containers, ended ones too, that carry all these labels (`seatrial.` is put before each name)."""
        ...

    def remove_volumes(self, **labels: str) -> list[str]:
        """Remove the anonymous volumes of containers with these labels that went without them; give their names."""
        ...

    def image(self, name: str) -> Image | None:
        """Find an image on this host."""
        ...

    def pull(self, name: str, *, check: Callable[[], None] = lambda: None) -> Image:
        """Fetch an image from its registry; raises ImageMissing when that says no, RegistryUnavailable, DiskFull.

        `check`: as for `build`.
        """
        ...

    def build(
        self,
        context: Path,
        *,
        dockerfile: str,
        tag: str,
        args: dict[str, str],
        log: Callable[[bytes], None],
        extra: dict[str, bytes] | None = None,
        memory: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Image:
        """Build from a directory, handing the build's output to `log` as it comes; raises ImageBuildFailed.

        `extra`: files that are added to the context, or stand in for those of the same path. `memory`: bytes that a
        command of the build may use. `check` is called several times a second, from the calling thread; what it
        raises ends the build and is passed on.
        """
        ...

    def output(self, name: str, *, limit: int = 65_536) -> bytes:
        """Give the last bytes that a container wrote to its standard output and error; empty when it is gone."""
        ...


class Databases(Protocol):
    """One verification database source on its server. Raises DatabaseUnavailable or DatabaseRefused throughout.

    A leg's own database has one name for all attempts. `fence` is asked while nobody else can make, freeze or drop the
    database, nor give a role to it: what it raises ends the call before anything was changed.
    """

    def base(self, data_id: str | None = None, *, snapshot: str | None = None) -> Base:
        """Find the newest blessed base of this source, the one with that id, or the one of that name.

        DatabaseRefused when the marker is missing, BaseGone when there is no base with that id any more, SnapshotGone
        when there is none of that name.
        """
        ...

    def made_from(self, database: str) -> Origin:
        """Tell what a clone of ours that stands was made from."""
        ...

    def clone(self, template: str, name: str, *, fence: Callable[[], None] = lambda: None) -> Clone:
        """Make database `name` from the frozen database `template`; one that stands there already is dropped first."""
        ...

    def login(self, database: str, *, role: str, owner: str, fence: Callable[[], None] = lambda: None) -> Login:
        """Make (or remake) the login role for a clone, member of `owner`, and give the key to it."""
        ...

    def freeze(self, database: str, *, fence: Callable[[], None] = lambda: None) -> None:
        """Refuse connections to a prepared clone, so that it can be a template; ends only our own sessions on it."""
        ...

    def drop(self, database: str, *, role: str | None = None, fence: Callable[[], None] = lambda: None) -> None:
        """Drop a clone that we made, and its role; safe to call twice. Refuses a name that is not one of ours."""
        ...

    def shut(self, role: str) -> None:
        """Let a login role of ours in no more and end its sessions; safe to call when there is none."""
        ...

    def stands(self, database: str, *, role: str) -> bool:
        """Tell whether a clone and its login role, which may log in, are there."""
        ...

    def probe(self) -> Probe:
        """Open the watch on the link to the server (see Probe)."""
        ...


# How far the clock of the door's log and the moment at which a probe notices can be apart, in seconds.
PROBE_SLACK = 2.0


class Probe(Protocol):
    """A session of our own on the server, by the same road as the door's; it tells a dropped link from a broken branch."""

    def lost_between(self, start: float, end: float) -> bool:
        """Tell whether the link was seen down at some time between two `time.monotonic()` values (± PROBE_SLACK)."""
        ...

    def close(self) -> None:
        """End the watch; safe to call twice."""
        ...


class Door(Protocol):
    """The only way out of a workspace: a Unix socket that leads to one clone."""

    def open(self, execution: str, login: Login, *, tcp_network: str | None = None) -> Path:
        """Start the gateway and give the directory that holds the socket `.s.PGSQL.5432`, ready to be used.

        `execution` is the fixed name of the workspace's container. `tcp_network`: the container whose network
        namespace gets a relay at 127.0.0.1:5432. Safe to call again for the same execution.
        """
        ...

    def dropped(self, execution: str) -> list[str]:
        """Give the gateway's log lines that speak of a lost server connection, oldest first."""
        ...

    def refusals(self, execution: str) -> list[str]:
        """Give the gateway's log lines that tell why it refused a client (start-up option, too many connections)."""
        ...

    def alive(self, execution: str) -> bool:
        """Tell whether the gateway that `open` started runs to this day; False when it was killed, removed or restarted."""
        ...

    def close(self, execution: str) -> None:
        """Stop and remove the gateway and its secrets; safe to call twice."""
        ...

    def standing(self) -> set[str]:
        """Name the executions of which something of a gateway stands on this host."""
        ...


class Objects(Protocol):
    """The content-addressed store (SHA-256, lower-case hex)."""

    def put(self, data: BinaryIO, *, durable: bool = True, later: bool = False) -> tuple[str, int]:
        """Store a stream to its end and give (digest, size in bytes); the same bytes are stored once.

        `durable`: survive a power cut too, not only the kill of a process. `later`: others need not find it before
        `settle`, so that many can be on their way at once; what goes wrong with it is told there.
        """
        ...

    def settle(self, digests: Sequence[str]) -> None:
        """Make objects that were stored without `durable`, or `later`, survive a power cut; cheaper for many at once."""
        ...

    def open(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open an object for reading from `offset`; raises KeyError."""
        ...

    def has(self, digest: str) -> bool:
        """Tell whether it is there."""
        ...


class Recorder(Protocol):
    """The ledger of one attempt. Every method raises Fenced when another attempt holds the task."""

    def log(self, data: bytes, *, source: tuple[int, int] | None = None) -> None:
        """Append to the task's log; durable within 250 ms.

        `source`: (execution, byte offset in its log file after `data`), recorded with the bytes themselves, so
        that whoever follows the same container later goes on there: no gap, no duplicate.
        """
        ...

    def step(self, name: str, *, state: str, seconds: float | None = None, detail: str = "") -> None:
        """Tell that a step began (`running`) or ended (`done`, `failed`) and how long it took."""
        ...

    def mark(self, results: Sequence[UnitResult], *, source: tuple[int, int] | None = None) -> None:
        """Record finished units in one transaction; durable on return. `source`: as for `log`, of the checkpoint file."""
        ...

    def void(self, unit: str, reason: str) -> None:
        """Take a mark back: the unit is to do again, and the page says why."""
        ...

    def token(self, token: str, *, source: tuple[int, int] | None = None) -> None:
        """Record the last checkpoint token of a script without units; one that is new to the task is progress."""
        ...

    def resume_point(self, token: str, output: Output) -> None:
        """Record from where the next container of a script without units goes on, with what was written by then."""
        ...

    def offsets(self, execution: int) -> tuple[int, int]:
        """Give (log, checkpoint) byte offsets up to which this execution's files have been taken."""
        ...

    def execution(
        self,
        execution: int,
        *,
        state: str,
        container: str,
        exit_code: int | None = None,
        fault: Reason | None = None,
        wrote: Used | None = None,
    ) -> None:
        """Record that a container was created, or how it ended. `fault`: the branch's, with which its task is to fail.

        `wrote`: what its workspace took at most, as far as that was seen.
        """
        ...

    def next_execution(self) -> int:
        """Give the number of this task's next container."""
        ...

    def renew(self) -> None:
        """Renew the lease now: whoever returns from this holds the task, whatever befell it before."""
        ...

    def check(self) -> None:
        """Raise Cancelled when the run was cancelled, Drained when the worker drains, Fenced when the lease is lost."""
        ...

    def flush(self) -> None:
        """Write all that is held back."""
        ...
