"""A project's mirror: pin refs exactly as the remote has them, list them, lay trees out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.adapters.git_command import GitFailed
from runner.adapters.git_export import TreeExport
from runner.adapters.git_refs import FULL_SHA, SHORT_SHA, check_name, kind_of, short_name
from runner.adapters.git_remote import GitCredentials, Remote
from runner.adapters.git_store import GitStore
from runner.adapters.git_tree import TreeLimits
from runner.errors import (
    RefNotFound,
    RefRefused,
    RemoteUnavailable,
    RepositoryUnavailable,
    RequestError,
    TreeRefused,
)
from runner.model import Commit, Ref, RefKind, Resolved

__all__ = ["GitCredentials", "GitMirror", "TreeLimits"]

_REGULAR = ("100644", "100755", "100664")


class GitMirror:
    """A `Mirror` (see runner.ports) in a bare repository at `path`, which is made when it is first needed.

    `fetch_timeout`: seconds that one fetch may take; the first one copies the whole repository. The limit given to
    `resolve` is for the remote's answer; a fetch over HTTP that transfers nothing for 30 s ends by itself.
    """

    def __init__(
        self,
        path: Path,
        repository: str,
        *,
        credentials: GitCredentials | None = None,
        submodules: bool = False,
        limits: TreeLimits = TreeLimits(),  # noqa: B008  # frozen
        fetch_timeout: float = 1_800.0,
    ) -> None:
        if submodules:
            remedy = "Leave the setting out; the directories of submodules stay empty."
            raise RequestError(
                f"submodules: fetching submodules is not supported. {remedy}",
                field="submodules",
                value="true",
                remedy=remedy,
            )
        self._remote = Remote.parse(repository, credentials)
        self._store = GitStore(path, self._remote, fetch_timeout=fetch_timeout)
        self._export = TreeExport(self._store.git, path / "checked", limits)

    def resolve(self, ref: str, *, timeout: float = 10.0) -> Resolved:
        """Pin a ref to the commit that the remote gives for it now (see Mirror.resolve)."""
        check_name(ref)
        try:
            if FULL_SHA.match(ref):
                return self._resolve_commit(ref.lower())
            for _ in range(3):
                told = self._store.ask(all_kinds=ref.startswith("refs/"), timeout=timeout)
                found = told.find(ref)
                if found is None and SHORT_SHA.match(ref):
                    return self._resolve_short(ref.lower())
                if found is None:
                    raise self._not_found(ref, f"has no branch, tag or pull request named {ref!a}", told.near(ref))
                commit = self._store.obtain(found.sha)
                if commit is not None:
                    return Resolved(found, commit)
                self._refuse_other_kind(ref, found.sha)
                # The ref moved after the remote had told it, and the commit of before is gone: ask again.
        except GitFailed as error:
            raise self._unavailable(error.reason) from None
        raise self._unavailable(f"{ref!a} changes faster than it can be fetched")

    def refs(self, prefix: str = "", *, limit: int = 50) -> list[Ref]:
        """List the refs that the mirror knows (see Mirror.refs)."""
        if not self._store.exists():
            return []
        fields = "%(refname)%00%(objectname)%00%(objecttype)%00%(*objectname)%00%(*objecttype)"
        output = self._read(
            ["for-each-ref", "--sort=-creatordate", f"--format={fields}", "refs/heads", "refs/tags", "refs/pull"]
        )
        known: dict[str, str] = {}
        for line in output.decode("utf-8", "replace").splitlines():
            name, sha, kind, peeled, peeled_kind = line.split("\0")
            if "commit" in (kind, peeled_kind):
                known[name] = sha if kind == "commit" else peeled
        found: list[Ref] = []
        for name, sha in known.items():
            short = short_name(name, known)
            if len(found) < limit and prefix in short:
                found.append(Ref(short, kind_of(name), sha))
        return found

    def commit(self, sha: str) -> Commit:
        """Describe a commit that the mirror has (see Mirror.commit)."""
        try:
            commit = self._store.describe(_full(sha))
        except GitFailed as error:
            raise self._damaged(error.reason) from None
        if commit is None:
            raise RefNotFound(f"The mirror has no commit {sha}.", field="ref", value=sha)
        return commit

    def merge_base(self, one: str, other: str) -> str | None:
        """Give the best common ancestor (see Mirror.merge_base)."""
        try:
            return self._store.merge_base(_full(one), _full(other))
        except GitFailed as error:
            raise self._damaged(error.reason) from None

    def ensure(self, sha: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Have the commit's objects here (see Mirror.ensure)."""
        sha = _full(sha)
        if self._store.pinned(sha):
            return
        try:
            commit = self._store.obtain(sha, check=check)
        except GitFailed as error:
            raise RepositoryUnavailable(
                f"Commit {sha[:12]} could not be fetched from {self._remote.shown}: {error.reason}."
            ) from None
        if commit is None:
            raise RepositoryUnavailable(f"Commit {sha[:12]} is gone from {self._remote.shown}.")

    def tend(self, *, older_than: float, repack: bool) -> int:
        """Remove what killed gits left, and with `repack` what nothing has held for two weeks; gives the bytes.

        Does nothing while somebody fetches. Raises RepositoryUnavailable when the mirror is damaged.
        """
        try:
            return self._store.tend(older_than=older_than, repack=repack)
        except GitFailed as error:
            raise self._damaged(error.reason) from None

    def read_file(self, sha: str, path: str, *, limit: int = 262_144) -> bytes | None:
        """Give a regular file of the commit (see Mirror.read_file)."""
        sha = _full(sha)
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            return None
        listing = self._read(["ls-tree", "-z", "-l", "--full-tree", sha, "--", path])
        mode, _, blob, size = (listing.partition(b"\t")[0].decode("ascii", "replace").split() + [""] * 4)[:4]
        if mode not in _REGULAR:
            return None
        if int(size) > limit:
            raise TreeRefused(f"{path!a} of {sha[:12]} has {int(size):,} bytes, at most {limit:,} are allowed.")
        return self._read(["cat-file", "blob", blob])

    def export(
        self,
        sha: str,
        target: Path,
        *,
        near: tuple[str, Path] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Lay the commit's files out in the empty directory `target` (see Mirror.export), for whom that belongs to.

        `near`: another commit of the mirror and its tree, which is never written to; what is the same in both is hard
        linked from there, so both must stay unchanged for ever.
        """
        sha = _full(sha)
        self._empty_target(target)
        try:
            self._export.heeding(check).lay_out(sha, target, near)
        except GitFailed as error:
            raise self._damaged(error.reason) from None

    def export_over(
        self, sha: str, target: Path, near: tuple[str, Path], *, check: Callable[[], None] = lambda: None
    ) -> bool:
        """Lay out in the empty directory `target` what an overlay needs besides the tree of `near` to show the commit.

        False, and `target` stays empty, where a whole tree serves better. Raises as export does.
        """
        sha = _full(sha)
        self._empty_target(target)
        try:
            return self._export.heeding(check).lay_over(sha, target, near)
        except GitFailed as error:
            raise self._damaged(error.reason) from None

    def _empty_target(self, target: Path) -> None:
        target.mkdir(exist_ok=True)
        if any(target.iterdir()):
            raise ValueError(f"{target} is not empty")
        if not self._store.exists():
            raise self._damaged("it has not been fetched yet")

    def fetch(self) -> None:
        """Bring the mirror up to date, the first time by copying all of it; raises RemoteUnavailable."""
        try:
            self._store.fetch()
        except GitFailed as error:
            raise self._unavailable(error.reason) from None

    def _resolve_commit(self, sha: str) -> Resolved:
        commit = self._store.obtain(sha)
        if commit is None:
            self._refuse_other_kind(sha, sha)
            raise self._not_found(sha, f"has no commit {sha}")
        return Resolved(Ref(sha, RefKind.COMMIT, sha), commit)

    def _resolve_short(self, short: str) -> Resolved:
        self._store.fetch()
        commits = self._store.commits(short)
        if not commits:
            raise self._not_found(short, f"has no branch, tag or commit {short}")
        if len(commits) > 1:
            raise RefRefused(
                f"ref: {short} is the beginning of {len(commits)} commits: {', '.join(commits[:5])}. Give more digits.",
                field="ref",
                value=short,
                remedy="Give more digits.",
            )
        return self._resolve_commit(commits[0])

    def _refuse_other_kind(self, ref: str, sha: str) -> None:
        kind = self._store.kind(sha)
        if kind is not None:
            raise self._not_found(ref, f"has a {kind} and no commit under {ref!a}")

    def _read(self, arguments: list[str]) -> bytes:
        if not self._store.exists():
            raise self._damaged("it has not been fetched yet")
        try:
            return self._store.read(arguments)
        except GitFailed as error:
            raise self._damaged(error.reason) from None

    def _not_found(self, ref: str, why: str, near: str = "") -> RefNotFound:
        remedy = f"{near}Names are exact, case included: check it, or push the branch first."
        return RefNotFound(f"ref: {self._remote.shown} {why}. {remedy}", field="ref", value=ref, remedy=remedy)

    def _unavailable(self, why: str) -> RemoteUnavailable:
        remedy = "Mend the project's repository or credentials, or try again later."
        return RemoteUnavailable(
            f"repository: {self._remote.shown} is not available: {why}.",
            field="repository",
            value=self._remote.shown,
            remedy=remedy,
        )

    def _damaged(self, why: str) -> RepositoryUnavailable:
        return RepositoryUnavailable(
            f"The mirror {self._store.path} of {self._remote.shown} cannot be read: {why}. "
            "When it is damaged, remove that directory: it is fetched anew."
        )


def _full(sha: str) -> str:
    """Give a full commit in lower case; anything else is the caller's mistake, not a user's."""
    if not FULL_SHA.match(sha):
        raise ValueError(f"not a full commit: {sha[:80]!a}")
    return sha.lower()
