from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from socket import create_server

import pytest
from fixtures_git import Repository, contents

from runner.adapters.git_mirror import GitMirror, TreeLimits
from runner.errors import DiskFull, RequestError, TreeRefused, TreeTooLarge


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "remote.git")


@pytest.fixture
def mirror(tmp_path: Path, remote: Repository) -> GitMirror:
    return GitMirror(tmp_path / "mirror.git", str(remote.path))


def test_modes_links_and_odd_names(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    files = {
        "run": ("100755", b"#!/bin/sh\n"),
        "old": ("100664", b""),
        "inside": ("120000", b"d/\xc3\xbc \n\t*"),
        "absolute": ("120000", b"/etc/passwd"),
        "outside": ("120000", b"../../../../etc"),
        "dangling": ("120000", b"nowhere"),
        "d/ü \n\t*": b"odd",
        "-rf": b"dash",
        "d/\udcff\udcfe": b"no utf-8",
        "back\\slash": b"",
    }
    sha = remote.branch("main", files)
    mirror.resolve("main")
    out = tmp_path / "out"
    before = os.umask(0o077)
    try:
        mirror.export(sha, out)
    finally:
        os.umask(before)
    assert (out / "run").stat().st_mode & 0o7777 == 0o755
    assert (out / "old").stat().st_mode & 0o7777 == 0o644
    assert (out / "d").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(out / "absolute") == "/etc/passwd"
    assert os.readlink(out / "outside") == "../../../../etc"
    assert (out / "inside").read_bytes() == b"odd"
    assert {os.fsdecode(name) for name in os.listdir(os.fsencode(out / "d"))} == {"ü \n\t*", "\udcff\udcfe"}
    assert not (out / ".git").exists()
    assert mirror.read_file(sha, "absolute") is None
    assert mirror.read_file(sha, "d/\udcff\udcfe") == b"no utf-8"


def test_nothing_of_the_branch_or_the_remote_runs_and_no_request_leaves(
    mirror: GitMirror, remote: Repository, tmp_path: Path
) -> None:
    pwned = tmp_path / "pwned"
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        hostile = tmp_path / "hostile.sh"
        hostile.write_text(f"#!/bin/sh\ntouch {pwned}\ncat\n")
        hostile.chmod(0o755)
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5\n"
        gitlink = ("160000", b"a" * 40)
        files: dict[str, bytes | tuple[str, bytes]] = {
            ".gitattributes": b"*.txt filter=evil\n*.bin filter=lfs diff=lfs merge=lfs -text\nbig.txt export-ignore\n"
            b"subst.txt export-subst\n",
            ".lfsconfig": b"[lfs]\n\turl = http://127.0.0.1:%d/lfs\n" % port,
            ".gitmodules": b'[submodule "a"]\n\tpath = sub\n\turl = ext::sh -c touch% ' + os.fsencode(pwned) + b"\n"
            b'[submodule "b"]\n\tpath = "sub\\r"\n\turl = http://127.0.0.1:%d/x\n\tupdate = !touch %s\n'
            % (port, os.fsencode(pwned)),
            ".githooks/post-checkout": ("100755", hostile.read_bytes()),
            "big.txt": b"kept",
            "subst.txt": b"$Format:%H$",
            "lfs.bin": pointer,
            "sub": gitlink,
            "sub\r": gitlink,
        }
        sha = remote.branch("main", files)
        (remote.path / "hooks").mkdir(exist_ok=True)
        hooks = "post-checkout post-index-change pre-receive update post-update reference-transaction post-upload-pack"
        for hook in hooks.split():
            (remote.path / "hooks" / hook).write_text(hostile.read_text())
            (remote.path / "hooks" / hook).chmod(0o755)
        for key in (
            "core.fsmonitor",
            "core.sshCommand",
            "core.pager",
            "core.gitProxy",
            "core.alternateRefsCommand",
            "credential.helper",
            "diff.external",
            "filter.evil.smudge",
            "filter.evil.process",
            "uploadpack.packObjectsHook",
        ):
            remote.git("config", key, str(hostile))
        remote.git("config", "filter.evil.required", "true")
        assert mirror.resolve("main").ref.sha == sha
        mirror.export(sha, tmp_path / "out")
        seen = contents(tmp_path / "out")
        assert seen == {name: data for name, data in files.items() if isinstance(data, bytes)} | {
            ".githooks/post-checkout": hostile.read_bytes()
        }
        assert list((tmp_path / "out/sub").iterdir()) == list((tmp_path / "out/sub\r").iterdir()) == []
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not pwned.exists()


def test_line_ends_follow_the_attributes_as_in_a_checkout(
    mirror: GitMirror, remote: Repository, tmp_path: Path
) -> None:
    sha = remote.branch("main", {".gitattributes": b"*.bat text eol=crlf\n", "a.bat": b"x\ny\n", "a.sh": b"x\ny\n"})
    mirror.resolve("main")
    mirror.export(sha, tmp_path / "out")
    assert (tmp_path / "out/a.bat").read_bytes() == b"x\r\ny\r\n"
    assert (tmp_path / "out/a.sh").read_bytes() == b"x\ny\n"


def test_submodules_are_refused_as_a_setting(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="submodules") as caught:
        GitMirror(tmp_path / "m.git", "/x", submodules=True)
    assert caught.value.field == "submodules"
    assert caught.value.remedy


@pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b".", b"a/b"])
def test_names_that_lead_out_are_refused(mirror: GitMirror, remote: Repository, tmp_path: Path, name: bytes) -> None:
    blob = remote.blob(b"[core]\n\tfsmonitor = touch pwned\n")
    inner = remote.tree([("100644", blob, b"config")])
    for n, tree in enumerate((remote.tree([("100644", blob, name)]), remote.tree([("40000", inner, name)]))):
        sha = remote.commit_tree(tree)
        remote.set(f"refs/heads/b{n}", sha)
        mirror.resolve(f"b{n}")
        with pytest.raises(TreeRefused):
            mirror.export(sha, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", [b"git~1", b".git ", b".git::$INDEX_ALLOCATION"])
def test_names_that_mean_git_elsewhere_are_refused(
    mirror: GitMirror, remote: Repository, tmp_path: Path, name: bytes
) -> None:
    sha = remote.commit_tree(remote.tree([("100644", remote.blob(b"x"), name)]))
    remote.set("refs/heads/main", sha)
    mirror.resolve("main")
    with pytest.raises(TreeRefused, match="invalid path"):
        mirror.export(sha, tmp_path / "out")


def test_a_link_and_a_directory_of_one_name_write_nothing_outside(
    mirror: GitMirror, remote: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link, data = remote.blob(os.fsencode(outside)), remote.blob(b"pwned")
    inner = remote.tree([("100644", data, b"file")])
    sha = remote.commit_tree(remote.tree([("120000", link, b"a"), ("40000", inner, b"a")]))
    remote.set("refs/heads/main", sha)
    mirror.resolve("main")
    with pytest.raises(TreeRefused, match="twice"):
        mirror.export(sha, tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_each_limit_is_checked_before_anything_is_written(remote: Repository, tmp_path: Path) -> None:
    limits = TreeLimits(files=20, bytes=1_000, blob=600, path_depth=5, path_length=100)
    mirror = GitMirror(tmp_path / "mirror.git", str(remote.path), limits=limits)
    branches = {
        "files": {f"f{n}": b"" for n in range(21)},
        "blob": {"big": b"x" * 601},
        "bytes": {"a": b"x" * 600, "b": b"y" * 401},
        "path_depth": {"a/b/c/d/e/f": b""},
        "path_length": {"x" * 101: b""},
    }
    for name, files in branches.items():
        sha = remote.branch(name, files)
        mirror.resolve(name)
        with pytest.raises(TreeTooLarge, match=rf"limit: {name}\)"):
            mirror.export(sha, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_the_default_limits_stop_bombs_in_time(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    blob = remote.blob(b"")
    deep = remote.tree([("100644", blob, b"f")])
    for _ in range(4_000):
        deep = remote.tree([("40000", deep, b"d")]) if _ % 100 else _chain(remote, deep, 100)
        if _ >= 40:
            break
    wide = remote.tree([("100644", blob, b"%04d" % n) for n in range(1_000)])
    wide = remote.tree([("40000", wide, b"%04d" % n) for n in range(500)])
    empty = remote.tree([])
    for _ in range(10):
        empty = remote.tree([("40000", empty, b"%d" % n) for n in range(10)])
    for name, tree, limit in (("deep", deep, "path_depth"), ("wide", wide, "files"), ("empty", empty, "files")):
        sha = remote.commit_tree(tree)
        remote.set(f"refs/heads/{name}", sha)
        mirror.resolve(name)
        began = time.monotonic()
        with pytest.raises(TreeTooLarge, match=limit):
            mirror.export(sha, tmp_path / "out")
        assert time.monotonic() - began < 60


def _chain(remote: Repository, tree: str, levels: int) -> str:
    for _ in range(levels):
        tree = remote.tree([("40000", tree, b"d")])
    return tree


def test_a_huge_file_is_refused_unwritten(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(540_000_000)
    # Above 512 MiB. Zeros pack to half a megabyte, so this is cheap to make and to fetch.
    blob = remote.git("-c", "core.bigFileThreshold=1m", "hash-object", "-w", str(tmp_path / "big"))
    sha = remote.commit_tree(remote.tree([("100644", blob, b"big.bin")]))
    remote.set("refs/heads/main", sha)
    mirror.resolve("main")
    with pytest.raises(TreeTooLarge, match=r"540,000,000 bytes.*limit: blob.*big\.bin"):
        mirror.export(sha, tmp_path / "out")


def test_a_full_disk_is_the_worlds_fault(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    sha = remote.bulk("main", {f"f{n}": os.urandom(100_000) for n in range(20)})
    mirror.resolve("main")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(DiskFull):
            mirror.export(sha, small / "out")
        assert list(small.iterdir()) == [small / "out"]
        with pytest.raises(DiskFull):
            GitMirror(small / "m.git", str(remote.path)).resolve("main")
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_tree_beside_another_shares_what_is_the_same(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    base: dict[str, bytes | tuple[str, bytes]] = {
        "same/a": b"a",
        "same/link": ("120000", b"a"),
        "same/dirlink": ("120000", b"../same"),
        "changed": b"old",
        "mode": b"x",
        "gone/deep/x": b"x",
        "gone/y": b"y",
        "file-to-dir": b"x",
        "dir-to-file/a/b": b"x",
        "link-to-dir": ("120000", b"same"),
        "dir-to-link/x": b"x",
        "sub": ("160000", b"a" * 40),
        "sub-gone": ("160000", b"a" * 40),
    }
    changed = {name: data for name, data in base.items() if not name.startswith(("gone", "dir-to", "file-", "sub-g"))}
    changed |= {
        "changed": b"new",
        "mode": ("100755", b"x"),
        "file-to-dir/x": b"y",
        "dir-to-file": b"y",
        "link-to-dir/x": b"y",
        "dir-to-link": ("120000", b"same"),
        "added/x": b"z",
        "sub-new": ("160000", b"b" * 40),
    }
    del changed["link-to-dir"]
    one, two = remote.branch("one", base), remote.branch("two", changed)
    three = remote.branch("three", {**changed, ".gitattributes": b"* text eol=crlf\n"})
    mirror.fetch()
    trees = {sha: tmp_path / sha for sha in (one, two)}
    mirror.export(one, trees[one])
    for sha, near in ((two, one), (one, two), (three, one)):
        mirror.export(sha, tmp_path / "plain")
        mirror.export(sha, tmp_path / "near", near=(near, trees[near] if near in trees else trees[one]))
        same = subprocess.run(["diff", "-r", "--no-dereference", tmp_path / "plain", tmp_path / "near"], check=False)
        assert same.returncode == 0
        modes = [
            sorted((str(p.relative_to(tmp_path / d)), p.lstat().st_mode) for p in (tmp_path / d).rglob("*"))
            for d in ("plain", "near")
        ]
        assert modes[0] == modes[1]
        shared = (tmp_path / "near/same/a").stat().st_nlink
        assert (shared == 1) == (sha == three), "other line ends, so nothing can be shared"
        if sha == two:
            (tmp_path / "near").rename(trees[two])
        else:
            subprocess.run(["rm", "-r", tmp_path / "near"], check=True)
        subprocess.run(["rm", "-r", tmp_path / "plain"], check=True)
    mirror.export(two, tmp_path / "lost", near=(one, tmp_path / "not there"))
    assert contents(tmp_path / "lost") == contents(trees[two])


def _export(job: tuple[str, str, str, str]) -> bytes:
    path, remote, sha, out = job
    GitMirror(Path(path), remote).export(sha, Path(out))
    return (Path(out) / "d3/f7").read_bytes()


def test_a_hundred_checkouts_at_once_while_branches_move(mirror: GitMirror, remote: Repository, tmp_path: Path) -> None:
    sha = remote.bulk("main", {f"d{n % 5}/f{n}": b"%d" % n for n in range(100)} | {"d3/f7": b"seven"})
    mirror.resolve("main")

    def export(n: int) -> bytes:
        if n % 10 == 0:
            mirror.resolve(mirror.resolve("main").ref.sha)
            remote.branch(f"topic{n}", {"n": b"%d" % n})
            mirror.resolve(f"topic{n}")
        return _export((str(tmp_path / "mirror.git"), str(remote.path), sha, str(tmp_path / f"t{n}")))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(export, range(100))) == {b"seven"}
    jobs = [(str(tmp_path / "mirror.git"), str(remote.path), sha, str(tmp_path / f"p{n}")) for n in range(40)]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as processes:
        assert set(processes.map(_export, jobs)) == {b"seven"}
    assert len(list((tmp_path / "p39").rglob("f*"))) == 101
