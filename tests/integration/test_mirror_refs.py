from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest
from fixtures_git import Repository, contents

from runner.adapters.git_mirror import GitMirror
from runner.adapters.git_refs import Advertised
from runner.adapters.git_store import GitStore
from runner.errors import Cancelled, Drained, RefNotFound, RefRefused, RemoteUnavailable, RepositoryUnavailable
from runner.model import RefKind


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "remote.git")


@pytest.fixture
def mirror(tmp_path: Path, remote: Repository) -> GitMirror:
    return GitMirror(tmp_path / "mirrors" / "p.git", str(remote.path))


def git(path: Path, *arguments: str) -> str:
    done = subprocess.run(["git", f"--git-dir={path}", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_is_made_before_it_is_needed(mirror: GitMirror, tmp_path: Path) -> None:
    assert mirror.refs() == []
    assert not (tmp_path / "mirrors").exists()


def test_annotated_and_nested_tags_are_peeled(mirror: GitMirror, remote: Repository) -> None:
    sha = remote.branch("main", {"a": b"1"})
    remote.git("tag", "-m", "one", "v1", sha)
    remote.git("tag", "-m", "two", "v2", "v1")
    assert mirror.resolve("v1").ref.sha == mirror.resolve("v2").ref.sha == sha
    assert mirror.resolve("v1").ref.kind == RefKind.TAG
    assert {ref.name: ref.sha for ref in mirror.refs("v1")} == {"v1": sha}


def test_what_is_no_commit_is_not_found(mirror: GitMirror, remote: Repository) -> None:
    sha = remote.branch("main", {"a": b"1"})
    tree, blob = remote.git("rev-parse", f"{sha}^{{tree}}"), remote.blob(b"1")
    remote.set("refs/tags/tree", tree)
    remote.set("refs/tags/blob", blob)
    remote.git("tag", "-m", "x", "annotated", sha)
    for name, kind in (("tree", "tree"), ("blob", "blob"), (tree, "tree"), (blob, "blob")):
        with pytest.raises(RefNotFound, match=f"a {kind} and no commit"):
            mirror.resolve(name)
    with pytest.raises(RefNotFound, match="a tag and no commit"):
        mirror.resolve(remote.git("rev-parse", "annotated"))
    with pytest.raises(RefNotFound):
        mirror.resolve(tree[:10])
    assert {ref.name for ref in mirror.refs()} == {"main", "annotated"}


def test_other_full_names_are_found_too(mirror: GitMirror, remote: Repository) -> None:
    change = remote.commit({"a": b"1"})
    remote.set("refs/changes/34/1234/1", change)
    remote.set("refs/merge-requests/5/head", change)
    assert mirror.resolve("refs/changes/34/1234/1").ref.kind == RefKind.PULL
    assert mirror.resolve("refs/merge-requests/5/head").commit.sha == change


def test_ambiguous_digits_name_the_candidates(mirror: GitMirror, remote: Repository) -> None:
    tree = remote.nest({"a": b"1"})
    seen: dict[str, bytes] = {}
    for n in range(200_000):
        text = f"tree {tree}\nauthor A <a@b> {n} +0000\ncommitter A <a@b> {n} +0000\n\nx\n".encode()
        sha = hashlib.sha1(b"commit %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
        if sha[:7] in seen:
            break
        seen[sha[:7]] = text
    both = [remote.raw_commit(text), remote.raw_commit(seen[sha[:7]])]
    remote.set("refs/heads/one", both[0])
    remote.set("refs/heads/two", both[1])
    with pytest.raises(RefRefused) as caught:
        mirror.resolve(sha[:7])
    assert caught.value.field == "ref"
    assert all(one in caught.value.text for one in both)
    assert mirror.resolve(both[0]).commit.sha == both[0]


def test_odd_commits_are_described(mirror: GitMirror, remote: Repository) -> None:
    tree = remote.nest({"a": b"1"})
    author = b"author \xff\xfe Nobody <> 1 +0000\n"
    texts = {
        "bytes": b"tree %s\n%scommitter A <a@b> 1700000000 +0530\n\n\xe9t\xe9 <script>{{7*7}}%%s\n\nmore\n",
        "latin": b"tree %s\n%scommitter A <a@b> 1700000000 +0000\nencoding ISO-8859-1\n\n\xe9t\xe9\n",
        "unknown": b"tree %s\n%scommitter A <a@b> 1700000000 +0000\nencoding x-none\n\n\xe9t\xe9\n",
        "empty": b"tree %s\n%scommitter A <a@b> 1700000000 +0000\n\n",
        "late": b"tree %s\n%scommitter A <a@b> 999999999999999 +0000\n\nx\n",
    }
    for name, text in texts.items():
        remote.set(f"refs/heads/{name}", remote.raw_commit(text % (tree.encode(), author)))
    commits = {name: mirror.resolve(name).commit for name in texts}
    assert commits["bytes"].subject == "\ufffdt\ufffd <script>{{7*7}}%s"
    assert commits["bytes"].author == "\ufffd\ufffd Nobody"
    assert commits["bytes"].at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert commits["latin"].subject == "été"
    assert commits["unknown"].subject == "\ufffdt\ufffd"
    assert commits["empty"].subject == ""
    assert commits["late"].at.year in (1970, 9999)
    assert len(mirror.refs()) == len(texts)


def test_the_sha_told_is_the_sha_pinned_when_a_push_comes_between(
    mirror: GitMirror, remote: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = remote.branch("main", {"a": b"old"})
    ask = GitStore.ask

    def ask_then_push(self: GitStore, *, all_kinds: bool, timeout: float) -> Advertised:
        told = ask(self, all_kinds=all_kinds, timeout=timeout)
        remote.branch("main", {"a": b"new"})
        return told

    monkeypatch.setattr(GitStore, "ask", ask_then_push)
    remote.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert mirror.resolve("main").ref.sha == old
    mirror.export(old, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"old"}


def test_a_push_that_takes_the_told_commit_away_is_asked_again(
    mirror: GitMirror, remote: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.branch("main", {"a": b"old"})
    ask = GitStore.ask
    times = []

    def ask_then_push(self: GitStore, *, all_kinds: bool, timeout: float) -> Advertised:
        told = ask(self, all_kinds=all_kinds, timeout=timeout)
        times.append(told.refs["refs/heads/main"])
        if len(times) == 1:
            remote.branch("main", {"a": b"new"})
            remote.git("prune", "--expire=now")
        return told

    monkeypatch.setattr(GitStore, "ask", ask_then_push)
    assert mirror.resolve("main").ref.sha == times[1] != times[0]


def test_pinned_commits_outlive_force_push_deletion_and_collection(
    mirror: GitMirror, remote: Repository, tmp_path: Path
) -> None:
    shas = [remote.branch("main", {"n": b"%d" % n}) for n in range(1)]
    for n in range(1, 4):
        mirror.resolve("main")
        shas.append(remote.branch("main", {"n": b"%d" % n}))
    mirror.resolve("main")
    remote.delete("refs/heads/main")
    remote.branch("other", {"a": b""})
    mirror.resolve("other")
    git(tmp_path / "mirrors/p.git", "reflog", "expire", "--expire=now", "--all")
    git(tmp_path / "mirrors/p.git", "gc", "-q", "--prune=now")
    fresh = GitMirror(tmp_path / "mirrors" / "p.git", str(remote.path))
    for n, sha in enumerate(shas):
        fresh.ensure(sha)
        fresh.export(sha, tmp_path / f"out{n}")
        assert contents(tmp_path / f"out{n}") == {"n": b"%d" % n}


def test_a_branch_may_become_a_directory_of_branches(mirror: GitMirror, remote: Repository) -> None:
    remote.branch("a", {"x": b"1"})
    mirror.resolve("a")
    remote.delete("refs/heads/a")
    sha = remote.branch("a/b", {"x": b"2"})
    assert mirror.resolve("a/b").ref.sha == sha
    assert [ref.name for ref in mirror.refs()] == ["a/b"]


def test_many_branches_are_listed_quickly(mirror: GitMirror, remote: Repository) -> None:
    text = b"commit refs/heads/%s\ncommitter A <a@b> %d +0000\ndata 1\nx\n"
    lines = [text % (b"topic/%05d" % n, 1_700_000_001 + n) for n in range(10_000)]
    lines.append(text % (b"main", 1_700_000_000))
    remote.git("fast-import", "--quiet", stdin=b"".join(lines))
    mirror.resolve("main")
    began = time.monotonic()
    assert [ref.name for ref in mirror.refs("topic/", limit=3)] == ["topic/09999", "topic/09998", "topic/09997"]
    assert [ref.name for ref in mirror.refs("0123")] == ["topic/01239"] + [
        f"topic/0123{n}" for n in range(8, -1, -1)
    ] + ["topic/00123"]
    assert time.monotonic() - began < 15  # 0.1 s each on a quiet machine; a git for each would take 20 s and more


def test_the_hosts_git_settings_and_environment_have_no_say(
    mirror: GitMirror, remote: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sha = remote.branch("main", {"a": b"1"})
    pwned = tmp_path / "pwned"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[core]\n\tfsmonitor = touch {pwned}\n[url "/nowhere/"]\n\tinsteadOf = /\n')
    for name, value in {
        "HOME": str(home),
        "GIT_DIR": "/nowhere",
        "GIT_INDEX_FILE": "/nowhere/index",
        "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_NAMESPACE": "x",
        "GIT_TEMPLATE_DIR": "/nowhere",
        "GIT_SSH": f"touch {pwned}",
        "GIT_CONFIG_PARAMETERS": "'core.bare'='false'",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_EXTERNAL_DIFF": f"touch {pwned}",
    }.items():
        monkeypatch.setenv(name, value)
    assert mirror.resolve("main").ref.sha == sha
    mirror.export(sha, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"1"}
    assert not pwned.exists()


def test_locks_that_a_killed_git_left_do_no_harm(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    remote.branch("main", {"a": b"1"})
    mirror.resolve("main")
    for name in ("refs/heads/main.lock", "packed-refs.lock", "shallow.lock"):
        (tmp_path / "mirrors/p.git" / name).touch()
    sha = remote.branch("main", {"a": b"2"})
    assert mirror.resolve("main").ref.sha == sha


@contextmanager
def abandoned(tmp_path: Path, *, timeout: float) -> Iterator[int]:
    """Have a worker fetch from a host that says nothing, and kill it; gives the pid of the ssh that its git started."""
    silent = tmp_path / "bin" / "ssh"
    silent.parent.mkdir()
    silent.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 600\n")
    silent.chmod(0o755)
    script = (
        "from pathlib import Path; from runner.adapters.git_mirror import GitMirror\n"
        f"GitMirror(Path({str(tmp_path / 'p.git')!r}), 'git@host:x', fetch_timeout={timeout}).fetch()"
    )
    env = {**os.environ, "PATH": f"{silent.parent}:{os.environ['PATH']}"}
    worker = subprocess.Popen([sys.executable, "-c", script], env=env, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        worker.kill()
        worker.wait()
        pid = int((tmp_path / "pid").read_text())
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()


def test_a_fetch_outlives_its_killed_worker_together_with_its_lock(tmp_path: Path) -> None:
    with abandoned(tmp_path, timeout=600.0) as pid, (tmp_path / ".p.git.lock").open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.killpg(os.getpgid(pid), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_fetch_that_outlives_its_killed_worker_ends_in_its_time(tmp_path: Path) -> None:
    with abandoned(tmp_path, timeout=5.0), (tmp_path / ".p.git.lock").open("w") as lock:
        deadline = time.monotonic() + 60
        held = True
        while held:
            assert time.monotonic() < deadline
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = False
            time.sleep(0.02)


def test_a_fetch_that_takes_its_time_ends_when_it_is_called_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    half = tmp_path / "p.git/objects/pack/tmp_pack_half"
    slow = tmp_path / "bin" / "ssh"
    slow.parent.mkdir()
    begin = f"mkdir -p {half.parent}\necho half >{half}\necho $$ >{tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\n"
    slow.write_text(f"#!/bin/sh\n{begin}exec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        assert looks[-1] - looks[0] < 60, "git is there"
        if (tmp_path / "pid").exists():
            raise Cancelled

    with pytest.raises(Cancelled):
        GitMirror(tmp_path / "p.git", "git@host:x").ensure("a" * 40, check=look)
    assert time.monotonic() - looks[-1] < 15  # it has half a second to end by itself
    until_gone(int((tmp_path / "pid").read_text()))
    assert not half.exists()
    with (tmp_path / ".p.git.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_whoever_waits_for_another_fetch_is_heard(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    sha = remote.branch("main", {"a": b"1"})
    (tmp_path / "mirrors").mkdir()
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 20:
            raise Drained

    with (tmp_path / "mirrors/.p.git.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Drained):
            mirror.ensure(sha, check=look)
    assert median(after - before for before, after in pairwise(looks)) < 0.2
    mirror.ensure(sha)


def test_an_interrupted_first_fetch_is_begun_anew(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    sha = remote.branch("main", {"a": b"1"})
    half = tmp_path / "mirrors" / ".p.git.new"
    half.mkdir(parents=True)
    (half / "HEAD").write_text("half")
    assert mirror.resolve("main").ref.sha == sha


def test_packs_are_rolled_up(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    first = remote.branch("main", {"n": b"first"})
    for n in range(56):
        mirror.resolve("main")
        remote.branch("main", {"n": b"%d" % n})
    assert len(list((tmp_path / "mirrors/p.git/objects/pack").glob("*.pack"))) < 20
    mirror.export(first, tmp_path / "out")


def test_one_fetch_serves_all_who_wait_for_it(
    mirror: GitMirror, remote: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = remote.branch("main", {"a": b"1"})
    fetches = []
    stale = GitStore._remove_stale_locks
    monkeypatch.setattr(GitStore, "_remove_stale_locks", lambda self: (fetches.append(1), stale(self))[1])
    with ThreadPoolExecutor(8) as pool:
        assert {found.ref.sha for found in pool.map(mirror.resolve, ["main"] * 24)} == {sha}
    assert len(fetches) == 1


def test_a_shallow_remote_works(remote: Repository, tmp_path: Path) -> None:
    parent = remote.branch("main", {"a": b"1"})
    sha = remote.commit_tree(remote.nest({"a": b"2"}), parent=parent)
    remote.set("refs/heads/main", sha)
    subprocess.run(
        ["git", "clone", "-q", "--bare", "--depth=1", f"file://{remote.path}", str(tmp_path / "shallow.git")],
        check=True,
    )
    mirror = GitMirror(tmp_path / "m.git", str(tmp_path / "shallow.git"))
    assert mirror.resolve("main").ref.sha == sha
    mirror.export(sha, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"2"}
    with pytest.raises(RefNotFound):
        mirror.resolve(parent)


def test_a_damaged_remote_is_named_in_time(remote: Repository, mirror: GitMirror) -> None:
    remote.branch("main", {"a": os.urandom(50_000)})
    remote.git("repack", "-adq")
    (pack,) = (remote.path / "objects/pack").glob("*.pack")
    pack.chmod(0o644)
    with pack.open("r+b") as file:
        file.seek(500)
        file.write(b"\0" * 4_000)
    began = time.monotonic()
    with pytest.raises(RemoteUnavailable, match=r"damaged|connection broke") as caught:
        mirror.resolve("main")
    assert time.monotonic() - began < 30
    assert "Traceback" not in caught.value.text


def test_a_damaged_mirror_is_named_with_its_remedy(remote: Repository, mirror: GitMirror, tmp_path: Path) -> None:
    sha = remote.branch("main", {"a": os.urandom(50_000)})
    mirror.resolve("main")
    (pack,) = (tmp_path / "mirrors/p.git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:1_000])
    with pytest.raises(RepositoryUnavailable, match=r"p\.git.*remove that directory"):
        mirror.export(sha, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises((RepositoryUnavailable, RefNotFound)):
        GitMirror(tmp_path / "mirrors" / "p.git", str(remote.path)).commit(sha)


def test_a_remote_that_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    for name in ("dir", "file", "missing"):
        with pytest.raises(RemoteUnavailable, match="no git repository at that address"):
            GitMirror(tmp_path / "m.git", str(tmp_path / name)).resolve("main")


def test_a_repository_of_another_user_is_named(remote: Repository, mirror: GitMirror) -> None:
    remote.branch("main", {"a": b"1"})
    assert os.geteuid() == 0, "the suite runs as root"
    os.chown(remote.path, 65_534, 65_534)
    with pytest.raises(RemoteUnavailable, match="belongs to another user"):
        mirror.resolve("main")


def test_a_sha256_repository_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "r256.git"
    subprocess.run(["git", "init", "-q", "--bare", "--object-format=sha256", str(path)], check=True)
    tree = git(path, "hash-object", "-w", "-t", "tree", "/dev/null")
    env = {**os.environ, **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}
    made = subprocess.run(
        ["git", f"--git-dir={path}", "commit-tree", "-m", "x", tree],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    git(path, "update-ref", "refs/heads/main", made.stdout.strip())
    with pytest.raises(RemoteUnavailable, match="256"):
        GitMirror(tmp_path / "m.git", str(path)).resolve("main")


def test_a_commit_is_pinned_while_git_packs_all_refs(
    remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git pack-refs` removes the directory of the pins where it packed the last one."""
    sha = remote.branch("main", {"a": b"1"})
    mirror = GitMirror(tmp_path / "m.git", str(remote.path))
    real, packed = Path.replace, list[Path]()

    def replace(self: Path, target: Path) -> Path:
        if not packed:
            packed.append(target)
            target.parent.rmdir()
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert mirror.resolve("main").ref.sha == sha
    assert [path.name for path in packed] == [sha]
    assert packed[0].read_text() == f"{sha}\n"
