"""Logs: a run's 256 MiB into its log, from the log to a browser, and one line all the way."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.measure import Row, pairs, percentile, ratio_row
from benchmarks.server import Server, commit, serving

MIB = 1 << 20
IMAGE = "seatrial/base:bookworm"
SPEC = "version: 1\nworkspace: {{image: 'seatrial/base:bookworm', limits: {{log: 4g}}}}\nrun: |\n  {run}\n"


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    with serving(root, slots=1) as server:
        commit(server.repository, "loud", SPEC.format(run="head -c 268435456 /dev/zero | tr '\\0' 'x' | fold -w 99"))
        commit(server.repository, "clock", SPEC.format(run="for i in $(seq 60); do date +%s.%N; sleep 0.25; done"))
        (root / "floor").mkdir()

        def floor() -> None:
            shell = "head -c 268435456 /dev/zero | tr '\\0' 'x' | fold -w 99 > /out/log"
            command = [
                "docker",
                "run",
                "--rm",
                "--network",
                "none",
                "-v",
                f"{root}/floor:/out",
                IMAGE,
                "sh",
                "-c",
                shell,
            ]
            subprocess.run(command, check=True)

        def loud() -> None:
            run = server.submit("loud")
            found = server.wait(run, every=0.05)
            kept.append((run, found))

        kept: list[tuple[int, dict[str, object]]] = []
        measured = pairs(floor, loud, rounds=3, warm=1)
        size = max(task["log_size"] for task in kept[-1][1]["tasks"])  # type: ignore[index,attr-defined]
        lines = 256 * MIB
        whole = size >= lines + lines // 99
        yield ratio_row(
            "256 MiB of log into the run's log",
            "bind-mounted file",
            measured,
            1.2,
            f"{size:,} bytes kept" + ("" if whole else ", SOME LOST"),
        )
        yield from _to_browser(server, kept[-1][0])
        yield _latency(server)


def _to_browser(server: Server, run: int) -> Iterator[Row]:
    """Send a finished run's log as live events and as a download, against `cat` of the same bytes through a pipe."""
    file = server.home / "same.log"
    with file.open("wb") as out, server.client.stream("GET", f"/api/v1/runs/{run}/log") as answer:
        for piece in answer.iter_raw():
            out.write(piece)
    size = file.stat().st_size

    def floor() -> None:
        cat = subprocess.Popen(["cat", str(file)], stdout=subprocess.PIPE)
        assert cat.stdout is not None
        while cat.stdout.read(65_536):
            pass
        cat.wait()

    for what, path in (("live events", "stream"), ("download", "log")):

        def fetch(path: str = path) -> None:
            got = _fetch(server, f"/api/v1/runs/{run}/{path}")
            if got < size:
                raise AssertionError(f"{path}: {got:,} bytes came, and {size:,} are there")

        measured = pairs(floor, fetch, rounds=7)
        yield ratio_row(f"log from file to one browser ({what})", "cat through a pipe", measured, 2.0)


def _fetch(server: Server, path: str) -> int:
    """Read an answer to its end as fast as it comes, and count its bytes; HTTP in Python would take longer than Seatrial."""
    address = urlsplit(server.url)
    held, got = bytearray(1 << 18), 0
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
        while count := connection.recv_into(held):
            got += count
    return got


def _latency(server: Server) -> Row:
    """Measure from the moment that the script prints a line to the moment that a stream's client has it."""
    run = server.submit("clock")
    late: list[float] = []
    with httpx.stream("GET", f"{server.url}/api/v1/runs/{run}/stream", timeout=60, trust_env=False) as answer:
        event = ""
        for line in answer.iter_lines():
            now = time.time()
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data: ") and event == "log":
                # Each is a flush of whole lines.
                lines = line.removeprefix("data: ").split("\x1f")
                late += [now - float(text) for text in lines if text.replace(".", "").isdigit()]
            if len(late) >= 55:
                break
    p95 = percentile(late, 0.95)
    detail = f"p50 {percentile(late, 0.5) * 1000:.0f} ms of {len(late)} lines"
    return Row("a printed line to the browser", "", f"p95 {p95 * 1000:.0f} ms", "p95 < 500 ms", p95 < 0.5, detail)
