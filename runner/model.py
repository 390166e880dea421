"""What the runner speaks of: frozen values without behaviour beyond derivation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.spec import Spec


@dataclass(frozen=True)
class Reason:
    """Why something is in the state that it is in: a stable code and a sentence for people."""

    code: str
    text: str


@dataclass(frozen=True)
class Commit:
    """A commit of a repository; `sha` is always the full 40 (or 64) hex digits, `at` is in UTC."""

    sha: str
    subject: str
    author: str
    at: datetime


class RefKind(StrEnum):
    BRANCH = "branch"
    TAG = "tag"
    PULL = "pull"
    COMMIT = "commit"


@dataclass(frozen=True)
class Ref:
    """A name that the remote advertises (`main`, `v2.41.0`, `refs/pull/7/head`) and the commit it stands for."""

    name: str
    kind: RefKind
    sha: str


@dataclass(frozen=True)
class Resolved:
    """A user's ref, pinned."""

    ref: Ref
    commit: Commit


@dataclass(frozen=True)
class Output:
    """A stored output: content address, size in bytes and the file name that the branch gave it.

    `tree` tells that the object is a manifest (JSON: path → {digest, size}) of several files.
    """

    name: str
    digest: str
    size: int
    tree: bool = False


class UnitState(StrEnum):
    TODO = "todo"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class UnitResult:
    """The durable record that a unit is finished. `seconds`: since the mark before it; None: not known."""

    unit: str
    state: UnitState
    output: Output | None = None
    text: str = ""
    seconds: float | None = None


class TaskKind(StrEnum):
    PREPARE = "prepare"
    VERIFY = "verify"


@dataclass(frozen=True)
class Template:
    """A frozen database from which executions get their clones; `snapshot`: the name of what it was made from."""

    source: str
    database: str
    owner: str
    data_id: str
    snapshot: str = ""


# A compare run's baseline, run once more to learn what moves by itself; scripts know it as `baseline`.
BASELINE_AGAIN = "baseline_again"


def leg_database(installation: str, run: int, leg: str) -> str:
    """Name a leg's own database: prepared, then frozen as the template of its executions."""
    return f"seatrial_leg_{installation}_r{run}_{leg}"


def execution_database(installation: str, run: int, task: int, execution: int) -> str:
    """Name an execution's clone, and its login role."""
    return f"seatrial_x_{installation}_r{run}_t{task}_e{execution}"


@dataclass(frozen=True)
class Known:
    """An earlier run's leg of the same commit and specification, of which all units are finished.

    `image` is a digest; with the same image and data (None: no database) there is nothing to prepare.
    """

    run: int
    leg: str
    image: str
    data: str | None
    units: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """All that the runner needs to know of one task.

    `resume_from` and `resume_output`: how far a script without units had come, and what it had written by then.
    `live`: the execution whose container an earlier attempt left on this host, if any. `elsewhere`: those that may
    still stand on other hosts, which fell silent: they must not reach a database any more. `units`: those still to do;
    `failed`: those of this task that earlier attempts saw fail, so that its end can say so. `data_id`: the base that a
    preparation has to start from; else `snapshot`, the name of one; both None for the newest. `known`: an earlier leg that
    may spare the preparation. `image` and `image_digest`: the name of the image that the leg was prepared in, and the
    image itself, which a batch takes even when another one has the name by now.
    """

    run: int
    leg: str
    task: int
    kind: TaskKind
    attempt: int
    project: str
    commit: str
    spec: Spec
    migrate: bool = False
    units: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    units_filter: str | None = None
    resume_from: str | None = None
    resume_output: Output | None = None
    image: str | None = None
    image_digest: str | None = None
    template: Template | None = None
    data_id: str | None = None
    snapshot: str | None = None
    installation: str = "0"
    live: int | None = None
    elsewhere: tuple[int, ...] = ()
    known: Known | None = None

    def container(self, execution: int) -> str:
        """Give the fixed name of the task's container number `execution`."""
        return f"seatrial-{self.installation}-r{self.run}-t{self.task}-e{execution}"

    @property
    def role(self) -> str:
        """Give the leg as the script knows it: both runs of a baseline are the same to it."""
        return "baseline" if self.leg == BASELINE_AGAIN else self.leg

    def leg_database(self) -> str:
        """Give the name of the leg's own database."""
        return leg_database(self.installation, self.run, self.leg)

    def execution_database(self, execution: int) -> str:
        """Give the name of an execution's clone and of its login role."""
        return execution_database(self.installation, self.run, self.task, execution)

    def labels(self, execution: int) -> dict[str, str]:
        """Give the labels by which a container is known to be this task's; they don't change with the attempt."""
        return {
            "installation": self.installation,
            "run": str(self.run),
            "leg": self.leg,
            "task": str(self.task),
            "execution": str(execution),
        }

    @property
    def has_units(self) -> bool:
        """Tell whether the script names its units; one that doesn't is the unit `all`."""
        return self.spec.units is not None


@dataclass(frozen=True)
class Prepared:
    """What a leg's preparation leaves behind for its batches.

    `known`: the earlier leg that spared it; then there are no batches, and the template has no database.
    """

    image: str
    image_digest: str
    units: tuple[str, ...]
    template: Template | None = None
    known: Known | None = None


# ---- workspace ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """A host path inside a container."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Overlay:
    """A writable view of a read-only tree: mounted by the engine itself, gone with the container.

    `lower`: the layers of the tree, the top one first.
    """

    lower: tuple[Path, ...]
    upper: Path
    work: Path
    target: str


@dataclass(frozen=True)
class Container:
    """What the engine is asked to create. `name` is fixed per task and execution, so creation is idempotent."""

    name: str
    image: str
    command: tuple[str, ...]
    labels: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    tmpfs: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    workdir: str | None = None
    network: str = "none"
    read_only: bool = True
    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    file_size: int | None = None
    init: bool = True


@dataclass(frozen=True)
class ContainerState:
    """What the engine says of a container. `exit_code` is None while it has not ended.

    `pid`: its first process in the engine's process table, None when it has none or it was not asked for.
    """

    name: str
    id: str
    status: str
    exit_code: int | None
    oom_killed: bool
    started_at: str
    error: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    pid: int | None = None

    @property
    def running(self) -> bool:
        return self.status in ("created", "running", "paused", "restarting")


@dataclass(frozen=True)
class Image:
    """An image on this host: `id` is its content address."""

    name: str
    id: str


# ---- database ----------------------------------------------------------------------------------------------


# A snapshot's name goes into commands, labels and pages; no space, so that it is one word everywhere.
SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Base:
    """A snapshot: a blessed, frozen copy of a source.

    `data_id` names the data of every result made from it; `name` is what people call it, the data id by default.
    `size` is what it takes on disk now, in bytes: the server may tidy it up at any time, so it tells no base from another.
    """

    source: str
    database: str
    data_id: str
    owner: str
    blessed_at: datetime
    size: int = field(compare=False)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.data_id)


@dataclass(frozen=True)
class Origin:
    """What a clone of ours was made from."""

    data_id: str
    owner: str
    snapshot: str


@dataclass(frozen=True)
class Login:
    """An execution's own role on its own clone. The password goes into the door and nowhere else.

    `server_ca`: file with the certificates that sign the server's, for the sslmodes verify-ca and verify-full.
    """

    host: str
    port: int
    database: str
    role: str
    password: str = field(repr=False)
    connection_limit: int = 20
    sslmode: str = "prefer"
    server_ca: Path | None = None


@dataclass(frozen=True)
class Clone:
    """A database of our own and how it came to be."""

    database: str
    method: str
    seconds: float
