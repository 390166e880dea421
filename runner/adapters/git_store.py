"""The bare repository of a mirror: made when it is needed, fetched under a lock, with pins that keep commits."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from runner.adapters.file_lock import locked_within
from runner.adapters.git_command import GitFailed, GitRunner, GitTimedOut, disk_full_told
from runner.adapters.git_refs import Advertised
from runner.adapters.git_remote import Remote
from runner.adapters.git_rounds import Rounds
from runner.model import Commit

_REFSPECS: Final = (
    "+refs/heads/*:refs/heads/*",
    "+refs/tags/*:refs/tags/*",
    "+refs/pull/*/head:refs/pull/*/head",
)
_PINS: Final = "refs/seatrial/pins"
_PIN_TRIES: Final = 10
_LOCAL: Final = 60.0
"""Seconds for a command that reads the mirror only: a listing of a million files takes 10."""
_PACKS: Final = 50
"""Packs before they, and refs, are rolled up: above that each look-up of an object costs noticeably more."""
_UNHELD: Final = "2.weeks.ago"
_UNPACK: Final = f"--unpack-unreachable={_UNHELD}"
_KNOWN: Final = 10_000
"""Descriptions of commits kept in memory, about 5 MB."""


class GitStore:
    """One bare repository and its remote; every method raises GitFailed. Safe from many threads and processes."""

    def __init__(self, path: Path, remote: Remote, *, fetch_timeout: float) -> None:
        self.path = path
        self.git = GitRunner(path, remote)
        self._remote = remote
        self._fetch_timeout = fetch_timeout
        self._rounds: dict[bool, Rounds[Advertised]] = {False: Rounds(), True: Rounds()}
        self._known: dict[str, Commit] = {}

    def exists(self) -> bool:
        """Tell whether it has been made; that happens at the first fetch."""
        return (self.path / "HEAD").exists()

    def ask(self, *, all_kinds: bool, timeout: float) -> Advertised:
        """Ask the remote for its branches and tags, or for all that it has.

        No name is handed over: what is looked for is compared here, exactly.
        """
        kinds = [] if all_kinds else ["--heads", "--tags"]
        command = ["ls-remote", "--quiet", *kinds, "--", self._remote.url]
        return self._rounds[all_kinds].ask(
            lambda left: Advertised.parse(self.git.run(command, timeout=left)), timeout=timeout
        )

    def obtain(self, sha: str, *, check: Callable[[], None] = lambda: None) -> Commit | None:
        """Have a commit here and pinned, by a fetch of all refs, then of it alone; None when there is none.

        `check`: see Mirror.ensure.
        """
        if sha in self._known and self.pinned(sha):
            return self._known[sha]
        commit = self.describe(sha)
        if commit is None:
            self.fetch(sha, check=check)
            commit = self.describe(sha)
        if commit is None and self.kind(sha) is None:
            self._fetch_alone(sha, check)
            commit = self.describe(sha)
        if commit is not None:
            self._pin(sha)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[sha] = commit
        return commit

    def pinned(self, sha: str) -> bool:
        """Tell without starting git that a commit was obtained; False means unknown."""
        return (self.path / _PINS / sha).exists()

    def kind(self, sha: str) -> str | None:
        """Tell what an object that is here is (`commit`, `tag`, `tree`, `blob`), or None."""
        if not self.exists():
            return None
        answer = self.read(["cat-file", "--batch-check"], stdin=f"{sha}\n".encode()).split()
        return None if answer[1:] == [b"missing"] else answer[1].decode()

    def describe(self, sha: str) -> Commit | None:
        """Describe a commit that is here; None when there is none."""
        if self.kind(sha) != "commit":
            return None
        output = self.read(
            ["log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%ct%x00%an%x00%s", sha, "--"]
        )
        at, author, subject = output.decode("utf-8", "replace").removesuffix("\n").split("\0", 2)
        return Commit(sha, subject, author, _utc(int(at or "0")))

    def commits(self, prefix: str) -> list[str]:
        """Find the commits that are here and whose hex digits begin with `prefix`."""
        # --disambiguate looks at objects only; as a revision, the digits could be the name of a ref.
        objects = self.read(["rev-parse", f"--disambiguate={prefix}"])
        kinds = self.read(["cat-file", "--batch-check"], stdin=objects).decode("ascii")
        fields = [line.split() for line in kinds.splitlines()]
        return sorted(sha for sha, kind, *_ in fields if kind == "commit")

    def merge_base(self, one: str, other: str) -> str | None:
        """Give the best common ancestor of two commits that are here; None when they have none."""
        try:
            return self.read(["merge-base", one, other]).decode("ascii").split()[0]
        except GitFailed as error:
            if error.stderr.strip():
                raise
            return None  # it ends with 1 and says nothing

    def read(self, arguments: Sequence[str], *, stdin: bytes = b"") -> bytes:
        """Run a command that only reads."""
        return self.git.run(arguments, timeout=_LOCAL, stdin=stdin)

    def fetch(self, wanted: str | None = None, *, check: Callable[[], None] = lambda: None) -> None:
        """Fetch all refs, unless another process brought `wanted` while this one waited for the lock."""
        self._fetch(wanted, ["--prune"], _REFSPECS, check)

    def _fetch_alone(self, sha: str, check: Callable[[], None]) -> None:
        """Fetch a commit that no branch has any more; remotes may refuse that, then it stays missing."""
        try:
            self._fetch(sha, [], [sha], check)
        except GitTimedOut:
            raise
        except GitFailed as error:
            if not re.search(r"not our ref|unadvertised object|couldn't find remote ref", error.stderr):
                raise

    def _fetch(
        self, wanted: str | None, options: Sequence[str], refspecs: Sequence[str], check: Callable[[], None]
    ) -> None:
        git = self.git.heeding(check)
        with disk_full_told(), self._locked(check=check) as lock:
            first = not self.exists()
            if first:
                self._create()
            if wanted is not None and self.kind(wanted) is not None:
                return
            self._remove_stale_locks()
            command = ["fetch", "--quiet", "--no-tags", "--force", "--no-recurse-submodules", "--no-write-fetch-head"]
            # Without --update-shallow a remote that is itself shallow gives nothing.
            command += ["--update-shallow", *options, "--", self._remote.url, *refspecs]
            try:
                git.run(command, timeout=self._fetch_timeout, keep_open=lock)
                if first or len(list((self.path / "objects/pack").glob("*.pack"))) > _PACKS:
                    for roll_up in (["pack-refs", "--all"], ["repack", "-d", "-n", "-q", "--geometric=2"]):
                        git.run(roll_up, timeout=self._fetch_timeout, keep_open=lock)
            except BaseException:
                with suppress(OSError):  # the sweeper tends it later
                    self._remove_half_made(older_than=0.0)
                raise

    def tend(self, *, older_than: float, repack: bool) -> int:
        """Remove what killed gits left in the object directory for longer than so many seconds; gives the bytes.

        `repack`: drop, too, what no ref and no pin has held for two weeks; that takes minutes where the repository is
        large, and the room of another copy of it. Does nothing while somebody fetches.
        """
        if not self.exists():
            return 0
        before = self._size()
        try:
            with disk_full_told(), self._locked(wait=False) as lock:
                self._remove_half_made(older_than=older_than)
                if repack:
                    for command in (["repack", "-A", "-d", "-n", "-q", _UNPACK], ["prune", f"--expire={_UNHELD}"]):
                        self.git.run(command, timeout=self._fetch_timeout, keep_open=lock)
        except GitTimedOut:
            return 0
        return max(0, before - self._size())

    def _size(self) -> int:
        size = 0
        for path in (self.path / "objects").rglob("*"):
            with suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

    def _remove_half_made(self, *, older_than: float) -> None:
        """Remove what gits that were ended left in the object directory: whoever holds the lock is the only writer."""
        end = time.time() - older_than
        for pattern in ("pack/tmp_*", "??/tmp_obj_*", "pack/.tmp-*"):
            for left in (self.path / "objects").glob(pattern):
                with suppress(FileNotFoundError):
                    if left.stat().st_mtime <= end:
                        left.unlink()

    def _create(self) -> None:
        making = self.path.with_name(f".{self.path.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        command = ["init", "--quiet", "--bare", "--template=", str(making)]
        self.git.run(command, timeout=_LOCAL, env={"GIT_DIR": str(making)})
        making.rename(self.path)

    def _remove_stale_locks(self) -> None:
        """Remove what a killed git left: whoever holds the mirror's lock is the only one to fetch."""
        for name in ("packed-refs.lock", "shallow.lock"):
            (self.path / name).unlink(missing_ok=True)
        for kind in ("heads", "tags", "pull"):
            for stale in (self.path / "refs" / kind).rglob("*.lock"):
                stale.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, *, wait: bool = True, check: Callable[[], None] = lambda: None) -> Iterator[int]:
        """Hold the mirror's lock; it belongs to the open file, so it keeps threads apart as well as processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not locked_within(lock, fcntl.LOCK_EX, seconds=self._fetch_timeout if wait else 0.0, check=check):
                raise GitTimedOut("another fetch of it has not ended yet")
            yield lock
        finally:
            os.close(lock)

    def _pin(self, sha: str) -> None:
        """Keep a commit from being collected when its branch moves on or goes.

        A pin's content follows from its name, so it is written without git's lock: whole, then renamed.
        """
        if self.pinned(sha):
            return
        pin = self.path / _PINS / sha
        fresh = self.path / f"pin-{sha}-{os.getpid()}-{time.monotonic_ns()}"
        with disk_full_told():
            with fresh.open("w") as file:
                file.write(f"{sha}\n")
                file.flush()
                os.fsync(file.fileno())
            for left in reversed(range(_PIN_TRIES)):
                try:
                    pin.parent.mkdir(parents=True, exist_ok=True)
                    fresh.replace(pin)
                    break
                except FileNotFoundError:  # a git that packs all refs removes a directory which that empties
                    if not left:
                        raise


def _utc(seconds: int) -> datetime:
    """Turn git's seconds into a time; those beyond the year 9999 into the last one."""
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC)
