"""Make an example's git repository out of its templates; the same templates give the same commit ids.

    python3 examples/repository.py ledger --target DIR

An example is a directory with a `history.json`:

    {"default": "main", "commits": [
        {"branch": "main", "date": "2025-03-03T09:00:00+00:00", "message": "…", "layers": ["template"], "tags": ["v1"]},
        {"branch": "feature", "from": "main", …, "layers": ["layers/feature"],
         "edits": [{"path": "a.py", "old": "…", "new": "…"}]}]}

A commit's tree is its parent's tree, with the files of each layer laid over it, then the edits; `from` names the branch
whose tip is the parent of a new branch's first commit. The repository is bare: clone it to look at it, push branches of
your own to it. Made again, it puts its own branches back and leaves yours alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
IDENTITY = "Seatrial examples <examples@seatrial.invalid>"


class ExampleError(Exception):
    """An example's templates contradict its history."""


@dataclass(frozen=True)
class Commit:
    """One step of an example's history, with its whole tree: path → content."""

    branch: str
    message: str
    at: datetime
    parent: int | None
    tree: dict[str, bytes]
    tags: tuple[str, ...] = ()


def read_history(example: Path) -> tuple[str, list[Commit]]:
    """Return the default branch and the commits of an example, in order. `parent` counts from 0."""
    history: dict[str, Any] = json.loads((example / "history.json").read_text())
    tips: dict[str, int] = {}
    commits: list[Commit] = []
    for step in history["commits"]:
        branch = step["branch"]
        start = branch if branch in tips else step.get("from")
        if start is not None and start not in tips:
            raise ExampleError(f"{branch} cannot start from {start}: no commit before it is on that branch")
        parent = tips[start] if start is not None else None
        tree = dict(commits[parent].tree) if parent is not None else {}
        for layer in step.get("layers", ()):
            tree.update(_layer(example / layer))
        for edit in step.get("edits", ()):
            tree[edit["path"]] = _edited(tree, **edit)
        at = datetime.fromisoformat(step["date"])
        commits.append(Commit(branch, step["message"], at, parent, tree, tuple(step.get("tags", ()))))
        tips[branch] = len(commits) - 1
    return history["default"], commits


def _layer(directory: Path) -> dict[str, bytes]:
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if not files:
        raise ExampleError(f"{directory} holds no files")
    return files


def _edited(tree: dict[str, bytes], path: str, old: str, new: str) -> bytes:
    """Replace the one place where `old` stands; none, or several, means that the template has moved on."""
    content = tree.get(path, b"")
    if content.count(old.encode()) != 1:
        raise ExampleError(f"{path} must hold this text exactly once: {old!r}")
    return content.replace(old.encode(), new.encode())


def make_repository(example: Path, target: Path) -> dict[str, str]:
    """Make or renew the bare repository `target` of `example`, and return its refs: short name → commit id."""
    default, commits = read_history(example)
    _git("init", "--quiet", "--bare", "--object-format=sha1", f"--initial-branch={default}", str(target))
    _git("-C", str(target), "fast-import", "--quiet", "--force", "--date-format=raw", stdin=_stream(commits))
    names = [f"refs/heads/{commit.branch}" for commit in commits]
    names += [f"refs/tags/{tag}" for commit in commits for tag in commit.tags]
    refs = _git("-C", str(target), "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", *names)
    return dict(line.split(" ", 1) for line in refs.decode().splitlines())


def _stream(commits: list[Commit]) -> bytes:
    """Write the history as `git fast-import` reads it. A file that begins with `#!` is executable."""
    out: list[bytes] = []

    def line(text: str) -> None:
        out.append(text.encode() + b"\n")

    def data(content: bytes) -> None:
        line(f"data {len(content)}")
        out.append(content + b"\n")

    for number, commit in enumerate(commits, start=1):
        stamp = f"{IDENTITY} {int(commit.at.timestamp())} +0000"
        if commit.parent is None:
            line(f"reset refs/heads/{commit.branch}")  # a new root, also when the branch exists already
        line(f"commit refs/heads/{commit.branch}")
        line(f"mark :{number}")
        line(f"author {stamp}")
        line(f"committer {stamp}")
        data(commit.message.encode() + b"\n")
        if commit.parent is not None:
            line(f"from :{commit.parent + 1}")
        line("deleteall")
        for path, content in sorted(commit.tree.items()):
            line(f"M {'100755' if content.startswith(b'#!') else '100644'} inline {path}")
            data(content)
        for tag in commit.tags:
            line(f"reset refs/tags/{tag}")
            line(f"from :{number}")
    return b"".join(out)


def _git(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run git with nobody's settings: no system or user configuration, no inherited GIT_* variable."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
    done = subprocess.run(["git", *arguments], input=stdin, env=clean, capture_output=True, check=False)
    if done.returncode:
        raise ExampleError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def names() -> list[str]:
    """Return the names of the examples."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/history.json"))


def main() -> None:
    """Make one repository and print where it is and what it holds, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=names())
    parser.add_argument("--target", type=Path, required=True, help="the bare repository to make or renew")
    options = parser.parse_args()
    refs = make_repository(EXAMPLES / options.example, options.target)
    print(json.dumps({"example": options.example, "repository": str(options.target.resolve()), "refs": refs}, indent=2))


if __name__ == "__main__":
    main()
