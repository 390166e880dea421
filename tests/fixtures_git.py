"""A real bare repository that tests write to as if they were its users."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ann Author",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Cy Committer",
    "GIT_COMMITTER_EMAIL": "cy@example.org",
}


class Repository:
    """A bare repository at `path`; commits are made by plumbing, so that hostile ones can be made too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._commits = 0
        subprocess.run(
            ["git", "init", "-q", "--bare", "-b", "main", str(path)], env=_ENV, check=True, capture_output=True
        )

    def git(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Run git on the repository and give its output without the last line end."""
        done = subprocess.run(
            ["git", f"--git-dir={self.path}", *arguments],
            input=stdin,
            env={**_ENV, **(env or {})},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")

    def blob(self, data: bytes) -> str:
        """Store a file's content."""
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def tree(self, entries: Sequence[tuple[str, str, bytes]]) -> str:
        """Store one directory from (mode, object, name); names are not checked."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha)
            for mode, sha, name in sorted(entries, key=lambda e: e[2] + (b"/" if e[0] == "40000" else b""))
        )
        return self.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=raw)

    def nest(self, files: Mapping[str, bytes | tuple[str, bytes]]) -> str:
        """Store nested directories from path → content, or → (mode, content)."""
        entries: list[tuple[str, str, bytes]] = []
        inner: dict[str, dict[str, bytes | tuple[str, bytes]]] = {}
        for path, content in files.items():
            top, _, rest = path.partition("/")
            if rest:
                inner.setdefault(top, {})[rest] = content
            else:
                mode, data = content if isinstance(content, tuple) else ("100644", content)
                sha = data.decode() if mode == "160000" else self.blob(data)
                entries.append((mode, sha, top.encode("utf-8", "surrogateescape")))
        entries += [("40000", self.nest(below), top.encode()) for top, below in inner.items()]
        return self.tree(entries)

    def commit_tree(self, tree: str, subject: str = "change", *, parent: str | None = None) -> str:
        """Store a commit of a tree, one second younger than the one before."""
        self._commits += 1
        date = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{1767225600 + self._commits} +0100")
        parents = ["-p", parent] if parent else []
        return self.git("commit-tree", tree, *parents, stdin=subject.encode("utf-8", "surrogateescape"), env=date)

    def commit(self, files: Mapping[str, bytes | tuple[str, bytes]], subject: str = "change") -> str:
        """Store a commit of these files that no ref has yet."""
        return self.commit_tree(self.nest(files), subject)

    def raw_commit(self, text: bytes) -> str:
        """Store a commit object as it is."""
        return self.git("hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=text)

    def set(self, full: str, sha: str) -> None:
        """Point a ref, given by its full name, at an object."""
        self.git("update-ref", full, sha)

    def delete(self, full: str) -> None:
        """Take a ref away, and collect what only it held."""
        self.git("update-ref", "-d", full)
        self.git("prune", "--expire=now")

    def branch(self, name: str, files: Mapping[str, bytes | tuple[str, bytes]], subject: str = "change") -> str:
        """Store a commit of these files and point a branch at it."""
        sha = self.commit(files, subject)
        self.set(f"refs/heads/{name}", sha)
        return sha

    def bulk(self, name: str, files: Mapping[str, bytes]) -> str:
        """Store a commit of many regular files at once and point a branch at it."""
        head = b"commit refs/heads/%s\ncommitter A <a@b> 1767225600 +0000\ndata 4\nbulk\n" % name.encode()
        parts = [
            b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data) for path, data in files.items()
        ]
        self.git("fast-import", "--quiet", stdin=head + b"".join(parts))
        return self.git("rev-parse", f"refs/heads/{name}")


def contents(tree: Path) -> dict[str, bytes]:
    """Read a directory: path → content of each regular file."""
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
