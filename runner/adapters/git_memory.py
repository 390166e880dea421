"""A mirror and its remote in memory: the strict twin of GitMirror, for tests without git."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runner.adapters.git_refs import FULL_SHA, SHORT_SHA, Advertised, check_name, kind_of, short_name
from runner.adapters.tree_files import hand_over
from runner.errors import RefNotFound, RefRefused, RemoteUnavailable, RepositoryUnavailable, TreeRefused, TreeTooLarge
from runner.model import Commit, Ref, RefKind, Resolved


@dataclass
class MemoryRemote:
    """A repository: commits with their files, refs by full name. `down` says why it does not answer."""

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    down: str | None = None

    def commit(
        self,
        files: Mapping[str, bytes],
        subject: str = "change",
        author: str = "Ann Author",
        parent: str | None = None,
    ) -> str:
        """Add a commit that no ref has yet, one second after the one before, and give its name."""
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.commits))
        listing = repr((sorted(files.items()), subject, author, at))
        sha = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = Commit(sha, subject, author, at)
        self.files[sha] = dict(files)
        if parent is not None:
            self.parents[sha] = parent
        return sha

    def set(self, full: str, sha: str) -> None:
        """Point a ref, given by its full name, at a commit."""
        if sha not in self.commits or not full.startswith("refs/"):
            raise ValueError(f"no such commit, or not a full name: {full} {sha}")
        self.refs[check_name(full)] = sha

    def delete(self, full: str) -> None:
        """Take a ref away; its commit becomes unreachable and can no longer be fetched."""
        del self.refs[full]


class MemoryMirror:
    """A `Mirror` (see runner.ports) of a MemoryRemote. `files` is the limit of an export, as in TreeLimits."""

    def __init__(self, remote: MemoryRemote, *, files: int = 200_000) -> None:
        self._remote = remote
        self._files = files
        self._refs: dict[str, str] = {}
        self._commits: dict[str, Commit] = {}
        self.fetches = 0

    def resolve(self, ref: str, *, timeout: float = 10.0) -> Resolved:
        """Pin a ref to the commit that the remote gives for it now (see Mirror.resolve)."""
        check_name(ref)
        if timeout <= 0:
            raise ValueError("timeout must be positive")
        if FULL_SHA.match(ref):
            return self._resolve_commit(ref.lower())
        self._answer()
        told = Advertised(self._remote.refs)
        found = told.find(ref)
        if found is None and SHORT_SHA.match(ref):
            return self._resolve_short(ref.lower())
        if found is None:
            raise RefNotFound(
                f"ref: there is no {ref!a}", field="ref", value=ref, remedy=f"{told.near(ref)}Check the name."
            )
        if found.sha not in self._commits:
            self.fetch()
        return Resolved(found, self._commits[found.sha])

    def refs(self, prefix: str = "", *, limit: int = 50) -> list[Ref]:
        """List the refs that the mirror knows (see Mirror.refs)."""
        newest = sorted(self._refs.items(), key=lambda item: self._commits[item[1]].at, reverse=True)
        named = [Ref(short_name(full, self._refs), kind_of(full), sha) for full, sha in newest]
        return [ref for ref in named if prefix in ref.name][:limit]

    def commit(self, sha: str) -> Commit:
        """Describe a commit that the mirror has (see Mirror.commit)."""
        if _full(sha) not in self._commits:
            raise RefNotFound(f"The mirror has no commit {sha}.", field="ref", value=sha)
        return self._commits[sha]

    def merge_base(self, one: str, other: str) -> str | None:
        """Give the commit at which two commits parted (see Mirror.merge_base)."""
        before = self._line(one)
        return next((sha for sha in self._line(other) if sha in before), None)

    def _line(self, sha: str) -> list[str]:
        line = [_full(sha)]
        while (parent := self._remote.parents.get(line[-1])) is not None:
            line.append(parent)
        return line

    def ensure(self, sha: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Have the commit's objects here (see Mirror.ensure)."""
        if _full(sha) in self._commits:
            return
        check()
        try:
            self.fetch()
        except RemoteUnavailable as error:
            raise RepositoryUnavailable(f"Commit {sha[:12]} could not be fetched: {error.text}") from None
        if sha not in self._commits:
            raise RepositoryUnavailable(f"Commit {sha[:12]} is gone.")

    def read_file(self, sha: str, path: str, *, limit: int = 262_144) -> bytes | None:
        """Give a regular file of the commit (see Mirror.read_file)."""
        data = self._tree(sha).get(path)
        if data is not None and len(data) > limit:
            raise TreeRefused(f"{path!a} of {sha[:12]} has {len(data):,} bytes, at most {limit:,} are allowed.")
        return data

    def export(
        self,
        sha: str,
        target: Path,
        *,
        near: tuple[str, Path] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Lay the commit's files out in the empty directory `target` (see Mirror.export); `near` saves nothing."""
        if near is not None and not near[1].is_dir():
            raise ValueError(f"{near[1]} is not a tree")
        target.mkdir(exist_ok=True)
        if any(target.iterdir()):
            raise ValueError(f"{target} is not empty")
        tree = self._tree(sha)
        directories = {parent for path in tree for parent in Path(path).parents} - {Path(".")}
        if len(tree) + len(directories) > self._files:
            raise TreeTooLarge(f"The tree of {sha[:12]} has more than {self._files:,} files (limit: files).")
        check()
        for path, data in tree.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(data)
        hand_over(target)

    def export_over(
        self, sha: str, target: Path, near: tuple[str, Path], *, check: Callable[[], None] = lambda: None
    ) -> bool:
        """Leave it at whole trees."""
        self._tree(sha)
        check()
        return False

    def fetch(self) -> None:
        """Bring the mirror up to date; raises RemoteUnavailable."""
        self._answer()
        self.fetches += 1
        self._refs = dict(self._remote.refs)
        self._commits |= {sha: replace(self._remote.commits[sha]) for sha in self._refs.values()}

    def _answer(self) -> None:
        if self._remote.down is not None:
            raise RemoteUnavailable(
                f"repository: it is not available: {self._remote.down}.", field="repository", remedy="Try again later."
            )

    def _resolve_commit(self, sha: str) -> Resolved:
        if sha not in self._commits:
            self.fetch()
        if sha not in self._commits:
            raise RefNotFound(f"ref: there is no commit {sha}", field="ref", value=sha, remedy="Check it.")
        return Resolved(Ref(sha, RefKind.COMMIT, sha), self._commits[sha])

    def _resolve_short(self, short: str) -> Resolved:
        self.fetch()
        found = sorted(sha for sha in self._commits if sha.startswith(short))
        if not found:
            raise RefNotFound(f"ref: there is no {short}", field="ref", value=short, remedy="Check it.")
        if len(found) > 1:
            raise RefRefused(
                f"ref: {short} is the beginning of {len(found)} commits: {', '.join(found)}",
                field="ref",
                value=short,
                remedy="Give more digits.",
            )
        return self._resolve_commit(found[0])

    def _tree(self, sha: str) -> dict[str, bytes]:
        if _full(sha) not in self._commits:
            raise RepositoryUnavailable(f"The mirror has no commit {sha[:12]}.")
        return self._remote.files[sha]


def _full(sha: str) -> str:
    if not FULL_SHA.match(sha):
        raise ValueError(f"not a full commit: {sha[:80]!a}")
    return sha
