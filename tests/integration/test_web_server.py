"""The web as it is deployed: gunicorn with one process, live viewers, and a quick end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest
from fixtures_postgres import free_port
from web_site import Site

from web.cursor import Cursor


@dataclass
class Server:
    site: Site
    url: str
    process: subprocess.Popen[bytes]

    def viewer(self, run: int) -> socket.socket:
        """Open a live stream and leave it open."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(f"GET /api/v1/runs/{run}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    site = Site.make(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SEATRIAL_SERVER__LISTEN": address}
    environment["SEATRIAL_CONFIG"] = str(tmp_path / "seatrial.toml")
    command = [sys.executable, "-m", "gunicorn", "--config", "python:web.gunicorn_conf", "web.wsgi:main()"]
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://{address}"
    for _ in range(600):
        try:
            httpx.get(f"{url}/healthz")
            break
        except httpx.TransportError:
            assert process.poll() is None, (tmp_path / "web.log").read_text()
            time.sleep(0.1)
    yield Server(site, url, process)
    process.terminate()
    process.wait(30)
    site.store.close()


def receive(connection: socket.socket, wanted: bytes) -> bytes:
    held = b""
    while wanted not in held:
        piece = connection.recv(65_536)
        assert piece, "the server closed the stream"
        held += piece
    return held


def test_a06_fifty_viewers_see_a_line(server: Server) -> None:
    run = server.site.submit()
    claim = server.site.claim()
    viewers = [server.viewer(run.id) for _ in range(50)]
    for viewer in viewers:
        assert b"200 OK" in receive(viewer, b"event: steps")
    server.site.log(claim, b"a printed line\n")
    for viewer in viewers:
        receive(viewer, b"data: a printed line\x1f\n\n")
    assert httpx.get(f"{server.url}/runs/{run.id}", timeout=60).status_code == 200
    for viewer in viewers:
        viewer.close()


def test_a_stream_of_many_tasks_goes_on_where_it_was(server: Server) -> None:
    server.site.worker()
    run = server.site.submit().id
    claim = server.site.claim()
    server.site.log(claim, b"seen\nnot yet\n")
    offsets = {claim.task.id: 5} | {10**6 + task: 1_000_000 for task in range(1_200)}
    cursor = str(Cursor(0, offsets))
    assert len(cursor) > 7_000
    long = "0;" + ",".join(f"{task}:{offset}" for task, offset in offsets.items())
    assert len(long) > 18_000
    for asked, headers in (
        ("?cursor=" + quote(cursor), {}),
        ("", {"Last-Event-ID": cursor}),
        ("", {"Last-Event-ID": long}),
    ):
        with httpx.stream(
            "GET", f"{server.url}/api/v1/runs/{run}/stream{asked}", headers=headers, timeout=60
        ) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            assert (
                next(line for line in lines if line.startswith('data: {"task"'))
                == f'data: {{"task":{claim.task.id},"offset":5}}'
            )
            assert next(lines) == "data: not yet\x1f"


def test_clients_that_do_not_hang_up_delay_nobody(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    idle = []
    for _ in range(15):  # gunicorn alone would wait two seconds for each of them, one after the other
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        idle.append(connection)
    assert httpx.get(f"{server.url}/runs", timeout=60).status_code == 200
    for connection in idle:
        assert b'"problems"' in receive(connection, b"}")
        assert connection.recv(1) == b""  # the whole answer, and then its end
        connection.close()


def test_it_stops_though_somebody_looks(server: Server) -> None:
    run = server.site.submit()
    viewers = [server.viewer(run.id) for _ in range(20)]
    for viewer in viewers:
        receive(viewer, b"event: steps")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    for viewer in viewers:
        viewer.close()


def test_a_worker_whose_master_was_killed_ends_though_somebody_looks(server: Server) -> None:
    run = server.site.submit()
    viewer = server.viewer(run.id)
    receive(viewer, b"event: steps")
    (worker,) = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait()
    worker.wait(60)
    viewer.close()


def test_a_worker_whose_master_was_killed_ends_though_a_client_takes_no_more(server: Server) -> None:
    run = server.site.submit().id
    claim = server.site.claim()
    server.site.log(claim, b"x" * (32 << 20) + b"\n")  # more than what is on its way
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        path = f"/api/v1/runs/{run}/tasks/{claim.task.id}/log"
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        receive(client, b"xxx")
        (worker,) = psutil.Process(server.process.pid).children()
        server.process.kill()
        server.process.wait()
        try:
            worker.wait(20)
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


def test_its_secret_is_its_own_and_kept(server: Server) -> None:
    key = server.site.root / "secret_key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_text()) == 64
    text = (server.site.root / "web.log").read_text()
    assert key.read_text() not in text
    assert "canary" not in text
