from __future__ import annotations

import base64
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import pytest
from fixtures_git import Repository

from runner.adapters.git_mirror import GitCredentials, GitMirror
from runner.errors import RemoteUnavailable, RepositoryUnavailable

CANARY = "canary-0123456789"
HEADER = "Basic " + base64.b64encode(f"x-access-token:{CANARY}".encode()).decode()


class Backend(BaseHTTPRequestHandler):
    """git-http-backend behind a password; `/moved/` redirects elsewhere."""

    root: Path
    elsewhere = ""
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/moved/"):
            self.send_response(301)
            self.send_header("Location", self.elsewhere + self.path)
            self.end_headers()
        elif self.headers.get("Authorization") != HEADER:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
        else:
            self._run()

    do_POST = do_GET  # noqa: N815  # the base class calls it so

    def _run(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.decode().partition(": ") for line in head.split(b"\r\n")]
        status = next((value for name, _, value in fields if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, _, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    remote = Repository(tmp_path / "remote.git")
    remote.branch("main", {"a": b"1"})
    return remote


@pytest.fixture
def backend(remote: Repository) -> Iterator[tuple[str, type[Backend]]]:
    handler = type("Private", (Backend,), {"root": remote.path.parent, "seen": []})
    with serving(handler) as url:
        yield url, handler


def told(error: RemoteUnavailable) -> str:
    return f"{error.text} {error.value} {error.remedy}"


def everything_below(path: Path) -> bytes:
    return b"".join(p.read_bytes() for p in path.rglob("*") if p.is_file())


def test_a_remote_that_wants_a_password_is_named(backend: tuple[str, type[Backend]], tmp_path: Path) -> None:
    for credentials in (None, GitCredentials(token="wrong-canary")):
        mirror = GitMirror(tmp_path / "m.git", f"{backend[0]}/remote.git", credentials=credentials)
        began = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="password") as caught:
            mirror.resolve("main")
        assert time.monotonic() - began < 30
        assert "canary" not in told(caught.value)
        with pytest.raises(RepositoryUnavailable, match="password"):
            mirror.ensure("f" * 40)


def test_a_token_opens_it_and_is_seen_nowhere(
    backend: tuple[str, type[Backend]], remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (bin_dir / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{tmp_path}/argv\nexec {real} "$@"\n')
    (bin_dir / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    mirror = GitMirror(tmp_path / "mirrors/m.git", f"{backend[0]}/remote.git", credentials=GitCredentials(token=CANARY))
    sha = mirror.resolve("main").ref.sha
    mirror.export(sha, tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"1"
    argv = (tmp_path / "argv").read_bytes()
    assert b"ls-remote" in argv
    for place in (argv, everything_below(tmp_path / "mirrors"), everything_below(tmp_path / "out"), repr(vars(mirror))):
        text = place if isinstance(place, bytes) else place.encode()
        assert CANARY.encode() not in text
        assert HEADER.removeprefix("Basic ").encode() not in text
    assert {authorization for _, authorization in backend[1].seen} == {HEADER}


def test_a_redirect_is_not_followed_and_no_token_goes_with_it(
    backend: tuple[str, type[Backend]], tmp_path: Path
) -> None:
    elsewhere = type("Elsewhere", (Backend,), {"root": tmp_path, "seen": []})
    with serving(elsewhere) as other:
        backend[1].elsewhere = other
        mirror = GitMirror(
            tmp_path / "m.git", f"{backend[0]}/moved/remote.git", credentials=GitCredentials(token=CANARY)
        )
        with pytest.raises(RemoteUnavailable, match="moved to another address"):
            mirror.resolve("main")
    assert elsewhere.seen == []


def test_a_missing_http_repository(backend: tuple[str, type[Backend]], tmp_path: Path) -> None:
    mirror = GitMirror(tmp_path / "m.git", f"{backend[0]}/none.git", credentials=GitCredentials(token=CANARY))
    with pytest.raises(RemoteUnavailable, match="no git repository at that address"):
        mirror.resolve("main")


@pytest.mark.parametrize("scheme", ["http", "ssh"])
def test_a_host_that_never_answers_is_given_up_in_time(scheme: str, tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as server:
        mirror = GitMirror(tmp_path / "m.git", f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x.git")
        began = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="did not answer within 1 s"):
            mirror.resolve("main", timeout=1)
        assert time.monotonic() - began < 30


def test_a_host_that_refuses(tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("http", "ssh"):
        with pytest.raises(RemoteUnavailable, match="no connection to its host"):
            GitMirror(tmp_path / "m.git", f"{scheme}://127.0.0.1:{port}/x.git").resolve("main")


def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f"#!/bin/sh\n{script}\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def test_ssh_uses_the_key_and_asks_nobody(remote: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(
        tmp_path,
        monkeypatch,
        f'printf "%s\\n" "$@" >{tmp_path}/argv\nfor last; do :; done\nexec git upload-pack {remote.path}',
    )
    key = tmp_path / "key's; touch pwned"
    key.write_text("secret canary")
    mirror = GitMirror(
        tmp_path / "m.git", "git@host.example:team/app.git", credentials=GitCredentials(ssh_key_file=key)
    )
    assert mirror.resolve("main").commit.subject == "change"
    argv = (tmp_path / "argv").read_text().split("\n")
    assert argv[argv.index("-i") + 1] == str(key)
    assert {"BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new", "git@host.example"} <= set(argv)
    assert "git-upload-pack 'team/app.git'" in argv
    assert b"canary" not in everything_below(tmp_path / "m.git")


def test_an_ssh_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(tmp_path, monkeypatch, f"trap '' TERM\nsleep 600 &\necho $! >{tmp_path}/pid\nwait")
    told = tmp_path / "pid"
    for _ in range(10):  # git may be killed before it came to its ssh
        began = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="did not answer within 1 s"):
            GitMirror(tmp_path / "m.git", "git@host.example:x").resolve("main", timeout=1)
        assert time.monotonic() - began < 30
        if told.exists() and told.read_text():
            break
    pid = int(told.read_text())
    deadline = time.monotonic() + 20
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_ssh_says_becomes_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(tmp_path, monkeypatch, "echo 'git@h: Permission denied (publickey).' >&2; exit 255")
    with pytest.raises(RemoteUnavailable, match="refused the ssh key"):
        GitMirror(tmp_path / "m.git", "git@host.example:x").resolve("main")


def test_a_remote_that_advertises_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(
        tmp_path,
        monkeypatch,
        "while :; do printf '0045%040d refs/heads/aaaaaaaaa\\n' 0; done",
    )
    began = time.monotonic()
    with pytest.raises(RemoteUnavailable):
        GitMirror(tmp_path / "m.git", "git@host.example:x").resolve("main", timeout=2)
    assert time.monotonic() - began < 30
