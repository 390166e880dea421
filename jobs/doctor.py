"""What is right and wrong with an installation: facts into findings. Pure.

Each finding is ok, a warning (it works, and somebody should know) or a problem (runs would fail), with its remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runner.adapters.postgres_names import SourceCheck

OLDEST_PYTHON = (3, 11)
OLDEST_GIT = (2, 30)
OLDEST_REDIS = (6, 2)  # BLMOVE, with which a ring is never lost between two commands
OLDEST_POSTGRES = 15

# A workspace may write 10 GiB by default, and an image takes a few hundred MiB: less than one of each is no room.
LITTLE_DISK, NO_DISK = 10 << 30, 1 << 30
# A tree of a large repository has tens of thousands of files.
FEW_INODES, NO_INODES = 200_000, 20_000


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, how it stands, and what to do about it."""

    what: str
    level: Level
    text: str
    remedy: str = ""


def healthy(findings: Iterable[Finding]) -> bool:
    """Tell whether there is no problem; warnings do not count."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def _ok(what: str, text: str) -> Finding:
    return Finding(what, Level.OK, text)


def _warning(what: str, text: str, remedy: str) -> Finding:
    return Finding(what, Level.WARNING, text, remedy)


def _problem(what: str, text: str, remedy: str) -> Finding:
    return Finding(what, Level.PROBLEM, text, remedy)


# ---- the machine -------------------------------------------------------------------------------------------


def judge_python(version: tuple[int, ...]) -> Finding:
    """Judge the interpreter."""
    text = ".".join(map(str, version[:3]))
    if version < OLDEST_PYTHON:
        return _problem("python", f"{text} is too old", "Install Python 3.11 or newer and make the environment anew.")
    return _ok("python", text)


def judge_git(version: str | None) -> Finding:
    """Judge git by the answer of `git --version`, None when there is none."""
    if version is None:
        return _problem("git", "there is no git", "Install it: apt-get install git")
    number = version_of(version)
    shown = version.removeprefix("git version ").strip()
    if not number or number < OLDEST_GIT:
        return _problem("git", f"{shown} is too old", "Install git 2.30 or newer.")
    return _ok("git", shown)


def version_of(text: str) -> tuple[int, ...]:
    """Read the first number with dots in a text: `git version 2.39.5` is (2, 39, 5)."""
    for word in text.replace("-", " ").split():
        parts = word.split(".")
        if parts[0].isdigit():
            numbers = []
            for part in parts:
                if not part.isdigit():
                    break
                numbers.append(int(part))
            return tuple(numbers)
    return ()


@dataclass(frozen=True)
class DiskFacts:
    """A directory's file system: bytes and files that are free, as an ordinary user; `inodes` None where it has no limit.

    `error`: why it cannot be written to, or looked at.
    """

    path: str
    free: int = 0
    total: int = 0
    inodes: int | None = None
    error: str = ""


def judge_disk(what: str, facts: DiskFacts) -> list[Finding]:
    """Judge the room of a directory."""
    if facts.error:
        remedy = f"Give {facts.path} to the user that runs Seatrial, or set another directory."
        return [_problem(what, f"{facts.path}: {facts.error}", remedy)]
    room = f"{facts.path}: {_gib(facts.free)} of {_gib(facts.total)} free"
    remedy = "Make room: remove old images (docker image prune) and files that are nobody's, or use a larger disk."
    if facts.free < NO_DISK:
        found = [_problem(what, room, remedy)]
    elif facts.free < LITTLE_DISK:
        found = [_warning(what, f"{room}, and one workspace may write 10 GiB", remedy)]
    else:
        found = [_ok(what, room)]
    if facts.inodes is not None and facts.inodes < FEW_INODES:
        text = f"{facts.path}: {facts.inodes:,} files more can be made"
        judge = _problem if facts.inodes < NO_INODES else _warning
        found.append(judge(f"{what}, inodes", text, "Remove small files, or make the file system with more inodes."))
    return found


def judge_carrier(path: str, kind: str) -> Finding:
    """Tell whether a file system can carry the upper layers of workspaces: another overlay, or NFS, cannot."""
    if kind in ("overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "vfat") or kind.startswith("fuse"):
        remedy = "Put server.home on ext4, XFS or Btrfs; in a container, mount a volume there."
        return _problem("home, file system", f"{path} is {kind}: no workspace can start there", remedy)
    return _ok("home, file system", kind)


def judge_disk_limit(kind: str | None, why_not: str = "") -> Finding:
    """Tell how limits.disk will be kept: by a project quota of that kind of file system, or by asking."""
    if kind is not None:
        return _ok("limits.disk", f"a project quota of {kind}: what a workspace writes past it is refused at once")
    at_once = "docs/deploy.md, A quota for each workspace, says how it would hold at once"
    return _ok("limits.disk", f"polled every 5 s ({why_not}); {at_once}")


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


# ---- Docker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself, and which of our images it has (name → is there); `error` when it is away."""

    info: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, bool] = field(default_factory=dict)
    error: str = ""


ENGINE_REMEDY = (
    "Start it (systemctl start docker), or install it (docker/engine.sh does both), and let this user use its socket "
    "(group docker)."
)
ENGINE_LIMITS = {"MemoryLimit": "memory", "PidsLimit": "pids", "CpuCfsQuota": "cpus"}
# What refuses to mount an overlay of ours, by which a workspace gets its tree in 5 ms.
USUAL_DRIVERS = ("overlay2", "overlayfs", "btrfs", "zfs", "fuse-overlayfs")


def judge_engine(facts: EngineFacts, *, api: str, gateway: str, base: str, databases: bool) -> list[Finding]:
    """Judge the Docker engine. `api`: the version of the API that we speak; `databases`: whether any is configured."""
    if facts.error:
        return [_problem("docker", facts.error, ENGINE_REMEDY)]
    info = facts.info
    found = [_ok("docker", f"engine {info.get('ServerVersion', '?')} answers, API {api} spoken")]
    if info.get("LiveRestoreEnabled"):
        found.append(_ok("docker, live-restore", "on: a restart of dockerd leaves workspaces running"))
    else:
        remedy = 'Put {"live-restore": true} into /etc/docker/daemon.json and reload it: systemctl reload docker'
        text = "off: a restart of dockerd ends every workspace, and its units are done again"
        found.append(_warning("docker, live-restore", text, remedy))
    driver = str(info.get("Driver", "?"))
    if driver in USUAL_DRIVERS:
        found.append(_ok("docker, storage", driver))
    else:
        remedy = 'Set "storage-driver": "overlay2" in /etc/docker/daemon.json; images are to be made anew then.'
        found.append(_warning("docker, storage", f"the storage driver {driver} copies whole images", remedy))
    found += _judge_walls(info)
    without = "no run could reach its database" if databases else "starts take longer"
    missing = _problem if databases else _warning
    for name, judge, why in (
        (gateway, missing, without),
        (base, _warning, "a seatrial.yml that names it would fail"),
    ):
        if facts.images.get(name):
            found.append(_ok(f"image {name}", "there"))
        else:
            found.append(judge(f"image {name}", f"not on this machine: {why}", "Make it: make images"))
    return found


def _judge_walls(info: Mapping[str, Any]) -> list[Finding]:
    """Judge whether the kernel and the engine can hold a workspace to its limits."""
    found = []
    lacking = [word for key, word in ENGINE_LIMITS.items() if info.get(key) is False]
    if lacking:
        remedy = "Enable these cgroup controllers (kernel command line: cgroup_enable=memory) and restart dockerd."
        text = f"the kernel does not limit {', '.join(lacking)}: a branch could take all of this machine"
        found.append(_problem("docker, limits", text, remedy))
    options = info.get("SecurityOptions") or []
    if not any("seccomp" in str(option) for option in options):
        text = "seccomp is off: a branch may call all of the kernel"
        found.append(_problem("docker, seccomp", text, "Use an engine and a kernel with seccomp (CONFIG_SECCOMP)."))
    return found


# ---- Redis -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RedisFacts:
    """What Redis or Valkey says of itself.

    `embedded`: ours, behind a socket of this user. `open_at`: TCP addresses that answered without a password.
    """

    url: str
    embedded: bool
    server: str = ""
    version: str = ""
    appendonly: bool | None = None
    policy: str = ""
    open_at: tuple[str, ...] = ()
    error: str = ""


def judge_redis(facts: RedisFacts) -> list[Finding]:
    """Judge the doorbell: it holds no record, so losing it costs a second and never a run."""
    if facts.error:
        if facts.embedded:
            remedy = "`seatrial up` starts it; without it work is found by looking, a second later."
            return [_warning("redis", f"the embedded Valkey does not answer: {facts.error}", remedy)]
        remedy = "Start it, or correct server.redis_url; left out, Seatrial brings its own."
        return [_problem("redis", f"{facts.url} does not answer: {facts.error}", remedy)]
    keeps = "" if facts.appendonly is None else f", appendonly {'on' if facts.appendonly else 'off (no harm)'}"
    name = f"{facts.server or 'redis'} {facts.version}{keeps}"
    found = []
    if version_of(facts.version) < OLDEST_REDIS:
        found.append(_problem("redis", f"{name} is too old", "Use Redis 6.2, Valkey 7.2 or newer."))
    else:
        found.append(_ok("redis", name))
    if facts.policy and facts.policy != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction, and in its configuration file"
        found.append(_warning("redis, eviction", f"{facts.policy}: rings may be thrown away", remedy))
    if facts.open_at:
        text = f"{', '.join(facts.open_at)} answers without a password: whoever reaches it can ring, listen and delete"
        remedy = "Set requirepass (or ACL users) and put the password into server.redis_url, or use a Unix socket."
        found.append(_warning("redis, protection", text, remedy))
    else:
        found.append(_ok("redis, protection", "nobody is let in without a password or a socket's permission"))
    return found


# ---- the store ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoreFacts:
    """What the store of records says. `revision`: of its tables, None when there are none; `known`: ours, oldest first.

    `damage`: what SQLite's quick_check found, empty when it is whole.
    """

    url: str
    kind: str = ""
    revision: str | None = None
    known: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    error: str = ""


def judge_store(facts: StoreFacts) -> list[Finding]:
    """Judge the store of records."""
    if facts.error:
        remedy = "Start it, or correct server.database_url; for SQLite see the directory's owner and mode."
        return [_problem("store", f"{facts.url}: {facts.error}", remedy)]
    if facts.damage:
        remedy = "Stop Seatrial, keep a copy of the file, then `sqlite3 FILE .recover` or take the last backup."
        return [_problem("store", f"{facts.kind} is damaged: {'; '.join(facts.damage[:3])}", remedy)]
    checked = ", whole (quick_check)" if facts.kind.startswith("SQLite") else ""
    if facts.revision is None:
        return [_ok("store", f"{facts.kind}: empty, its tables are made at the first start")]
    if facts.revision not in facts.known:
        text = f"{facts.kind}: its tables ({facts.revision}) are newer than this Seatrial"
        return [_problem("store", text, "Use the Seatrial that wrote it, or a newer one.")]
    if facts.revision != facts.known[-1]:
        text = f"{facts.kind}: its tables are at {facts.revision}, {facts.known[-1]} is the newest{checked}"
        return [_warning("store", text, "They are brought up to date by the next start of Seatrial.")]
    return [_ok("store", f"{facts.kind}: tables at {facts.revision}{checked}")]


# ---- databases and projects --------------------------------------------------------------------------------


def judge_database(name: str, facts: SourceCheck | None, error: str = "") -> list[Finding]:
    """Judge a verification database by its check; None with the error when it could not be checked."""
    what = f"database {name}"
    if facts is None:
        return [_problem(what, error, f"Correct databases.{name} in seatrial.toml.")]
    found = [
        (_problem if problem.refuses else _warning)(what, problem.text, problem.remedy) for problem in facts.problems
    ]
    version = version_of(facts.version)
    if version and version[0] < OLDEST_POSTGRES:
        text = f"PostgreSQL {facts.version} is too old to be cloned safely"
        found.insert(0, _problem(what, text, "Restore the copy on PostgreSQL 15 or newer."))
    if facts.usable:
        took = "" if facts.seconds is None else f", a clone takes {facts.seconds:.2f} s ({facts.method})"
        found.insert(0, _ok(what, f"PostgreSQL {facts.version}, marked, branches become {facts.owner}{took}"))
    return found


@dataclass(frozen=True)
class ProjectFacts:
    """How a project's repository answered, within how many seconds, and what is wrong with its default seatrial.yml."""

    name: str
    repository: str
    seconds: float = 0.0
    error: str = ""
    spec: str | None = None
    spec_problems: tuple[str, ...] = ()


def judge_project(facts: ProjectFacts) -> list[Finding]:
    """Judge a project."""
    what = f"project {facts.name}"
    if facts.error:
        remedy = f"Correct repository or credentials of projects.{facts.name}, or mend the way to it."
        found = [_problem(what, facts.error, remedy)]
    else:
        found = [_ok(what, f"{facts.repository} answers in {facts.seconds:.1f} s")]
    if facts.spec_problems:
        text = f"{facts.spec} is not valid: {'; '.join(facts.spec_problems[:3])}"
        found.append(_problem(f"{what}, spec", text, f"Mend it: seatrial spec check {facts.spec}"))
    elif facts.spec is not None:
        found.append(_ok(f"{what}, spec", f"{facts.spec} is valid"))
    return found


def counted(findings: Sequence[Finding]) -> str:
    """Count the findings in words."""
    problems = sum(1 for finding in findings if finding.level is Level.PROBLEM)
    warnings = sum(1 for finding in findings if finding.level is Level.WARNING)
    parts = [
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((problems, "problem"), (warnings, "warning"))
        if count
    ]
    return " and ".join(parts) if parts else "All is well"
