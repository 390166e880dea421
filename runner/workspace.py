"""Lay out what one execution sees: the tree, its files, its environment, its limits. Workspace contract, version 1."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.disk import DISK_SECONDS
from runner.files import remove_tree
from runner.model import Container, Mount, Order, Overlay
from runner.quota import NoQuota, Quota, allot

SOURCE = "/seatrial/src"
CONTROL = "/seatrial/control"
IO = "/seatrial/io"
OUTPUT = "/seatrial/output"
DATABASE = "/seatrial/db"
HOME = "/home/seatrial"

ROOT_WORKSPACE_UID = 10_001  # when the worker is root; otherwise the worker's own

_WRAPPER = Path(__file__).with_name("wrapper.sh")
_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nseatrial:x:{uid}:{gid}:Seatrial workspace:{home}:/bin/sh\n"  # noqa: S105 - no password
_GROUP = "root:x:0:\nseatrial:x:{gid}:\n"


@dataclass(frozen=True)
class Command:
    """A command of the workspace: `name` is its step (`setup`, `migrate`, `units`, `run`), `text` is for `sh -c`."""

    name: str
    text: str


@dataclass(frozen=True)
class Workspace:
    """The directories of one execution on this host."""

    root: Path

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def io(self) -> Path:
        return self.root / "io"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def upper(self) -> Path:
        return self.root / "upper"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def project(self) -> Path:
        """Give the file that holds the number of its project quota, if it has one; branch code sees nothing of it."""
        return self.root / "project"

    @property
    def layers(self) -> Path:
        """Give the file that names the layers of its tree, a line each; the cache of trees lets them stand."""
        return self.root / "tree"

    def commands(self) -> tuple[str, ...]:
        """Name the files of its commands, in their order: `00-setup`, `01-units`."""
        return tuple(sorted(os.listdir(self.control / "commands")))

    def complete(self) -> bool:
        """Tell whether `lay_out` came to its end, the last thing that it makes being there, and it was not given up."""
        return self.journal.exists()

    def lay_out(self, commands: Sequence[Command], units: Sequence[str] | None, tree: Sequence[Path] = ()) -> None:
        """Write the control files and make the directories that the workspace may write to; note the tree's layers."""
        uid, gid = workspace_ids()
        remove_tree(self.root)
        self.root.mkdir(mode=0o700, parents=True)
        (self.control / "commands").mkdir(parents=True)
        for position, command in enumerate(commands):
            (self.control / "commands" / f"{position:02}-{command.name}").write_text(command.text, "utf-8")
        shutil.copyfile(_WRAPPER, self.control / "wrapper.sh")
        (self.control / "passwd").write_text(_PASSWD.format(uid=uid, gid=gid, home=HOME))
        (self.control / "group").write_text(_GROUP.format(gid=gid))
        if units is not None:
            (self.control / "units").write_text("".join(f"{unit}\n" for unit in units), "utf-8")
        for directory in (self.io, self.output, self.upper, self.work):
            directory.mkdir()
            if os.geteuid() == 0:
                os.chown(directory, uid, gid)
        for name in ("log", "checkpoint", "steps"):
            file = self.io / name
            file.touch()
            if os.geteuid() == 0:
                os.chown(file, uid, gid)
        # Whatever the worker's umask: the workspace's uid reads these.
        for path in (self.control, *self.control.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.layers.write_text("".join(f"{layer}\n" for layer in tree), "utf-8")
        self.journal.touch()

    def limit_disk(self, limit: int) -> str:
        """Limit what the commands can write, right after `lay_out`; tell by what means."""
        try:
            quota = allot(self.root, [self.io, self.output, self.upper, self.work, *self.io.iterdir()], limit)
        except NoQuota as error:
            return f"polled every {DISK_SECONDS:.0f} s ({error})"
        self.project.write_text(f"{quota.kind} {quota.project}")
        return f"a project quota of {quota.kind} (project {quota.project})"

    def quota(self) -> Quota | None:
        """Give the project quota that it was given, if any."""
        try:
            kind, number = self.project.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return Quota(self.root, int(number), kind)

    def give_up(self) -> None:
        """Let it be complete no more: nothing is left of its execution but these files, and somebody removes them."""
        self.journal.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything; safe to call twice."""
        quota = self.quota()
        if quota is not None:
            quota.release()  # before: while there are files, nobody else can be given the same number
        remove_tree(self.root)


def workspace_ids() -> tuple[int, int]:
    """Give the uid and gid that branch code runs under: never root's."""
    if os.geteuid() == 0:
        return ROOT_WORKSPACE_UID, ROOT_WORKSPACE_UID
    return os.geteuid(), os.getegid()


def container(
    order: Order,
    execution: int,
    workspace: Workspace,
    *,
    image: str,
    tree: tuple[Path, ...],
    network: str,
    database: Path | None,
    units: bool,
) -> Container:
    """Describe the container of an execution: sealed, limited, with the contract's environment.

    `tree`: the layers of the commit's files, the top one first.
    """
    uid, gid = workspace_ids()
    limits = order.spec.workspace.limits
    owner = f"uid={uid},gid={gid},mode=0700"
    mounts = [
        Mount(workspace.control, CONTROL),
        Mount(workspace.control / "passwd", "/etc/passwd"),
        Mount(workspace.control / "group", "/etc/group"),
        Mount(workspace.io, IO, read_only=False),
        Mount(workspace.output, OUTPUT, read_only=False),
    ]
    if database is not None:
        mounts.append(Mount(database, DATABASE))
    return Container(
        name=order.container(execution),
        image=image,
        command=("sh", f"{CONTROL}/wrapper.sh"),
        labels=order.labels(execution) | {"kind": "workspace"},
        env=environment(order, database=database is not None, units=units),
        mounts=tuple(mounts),
        overlays=(Overlay(tree, workspace.upper, workspace.work, SOURCE),),
        # Their pages count as memory: half of it may be files, so that a full one says so before the kernel kills.
        tmpfs={
            "/tmp": f"exec,mode=1777,size={limits.memory // 2}",  # noqa: S108 - a tmpfs inside
            HOME: f"exec,{owner},size={limits.memory // 4}",
        },
        user=f"{uid}:{gid}",
        workdir=SOURCE,
        network=network,
        cpus=limits.cpus,
        memory=limits.memory,
        pids=limits.pids,
        file_size=max(limits.file, limits.log),
        init=False,  # the wrapper is the first process, which nothing in the workspace can kill
    )


def environment(order: Order, *, database: bool, units: bool) -> dict[str, str]:
    """Give the contract's variables; the specification's own come first, so they can never replace them."""
    found = dict(order.spec.workspace.env)
    found |= {
        "HOME": HOME,
        "SEATRIAL_RUN": str(order.run),
        "SEATRIAL_LEG": order.role,
        "SEATRIAL_COMMIT": order.commit,
        "SEATRIAL_ATTEMPT": str(order.attempt),
        "SEATRIAL_OUTPUT": OUTPUT,
        "SEATRIAL_CHECKPOINT": f"{IO}/checkpoint",
    }
    if units:
        found["SEATRIAL_UNITS"] = f"{CONTROL}/units"
    if order.resume_from is not None:
        found["SEATRIAL_RESUME_FROM"] = order.resume_from
    if database:
        host = "127.0.0.1" if order.spec.database is not None and order.spec.database.tcp else DATABASE
        found |= {
            "PGHOST": host,
            "PGPORT": "5432",
            "PGDATABASE": "verification",
            "PGUSER": "seatrial",
            "DATABASE_URL": (
                "postgresql://seatrial@127.0.0.1:5432/verification"
                if host == "127.0.0.1"
                else f"postgresql:///verification?host={DATABASE}&user=seatrial"
            ),
        }
    return found
