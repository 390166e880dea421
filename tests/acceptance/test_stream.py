"""The live stream shows the whole log once, byte by byte, however often it is cut; batches run side by side."""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from datetime import datetime, timedelta

import httpx
from fixtures_git import Repository
from fixtures_server import Server, branch_files, kill

# Some 30 seconds of numbered lines if nobody opens the gate; the bytes that are no UTF-8 must get through as well.
PRINTING = """\
work() {
    last=0
    until [ -e /tmp/go ] || [ $last -ge 100000 ]; do
        seq -f "$1 %06.0f" $((last + 1)) $((last + 200))
        printf '\\r\\033[31m\\377\\376\\000 bar\\n'
        last=$((last + 200))
        sleep 0.05
    done
}
each
"""


class Viewer:
    """A client of a run's stream that is cut after a second, again and again, and goes on at its last event."""

    def __init__(self, server: Server, run: int) -> None:
        self._url = f"{server.url}/api/v1/runs/{run}/stream"
        self.logs: dict[int, bytes] = {}
        self.last = ""
        self.cuts = 0
        self.ended = False

    def look(self, seconds: float) -> None:
        """Follow for so long, and leave in the middle of whatever comes then."""
        headers = {"Last-Event-ID": self.last} if self.last else {}
        deadline = time.monotonic() + seconds
        with (
            suppress(httpx.TransportError),  # web is on its way back
            httpx.Client(timeout=httpx.Timeout(5.0, read=1.0), trust_env=False) as client,
            client.stream("GET", self._url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                return
            rest = b""
            for data in answer.iter_raw(512):
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    self._take(event)
                if self.ended or time.monotonic() > deadline:
                    break
        self.cuts += 1

    def _take(self, event: bytes) -> None:
        fields: dict[str, str] = {}
        for line in event.decode().split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        self.last = fields.get("id", self.last)
        if fields.get("event") == "log":
            head, _, text = fields["data"].partition("\n")
            chunk = json.loads(head)
            log = self.logs.get(chunk["task"], b"")
            assert chunk["offset"] == len(log), (
                f"task {chunk['task']}: byte {len(log)} was expected, not {chunk['offset']}"
            )
            self.logs[chunk["task"]] = log + (
                base64.b64decode(chunk["base64"]) if "base64" in chunk else text.replace("\x1f", "\n").encode()
            )
        self.ended = fields.get("event") == "end"


def test_stream_that_is_cut_every_second(server: Server, lab: Repository) -> None:
    lab.branch("printing", branch_files(PRINTING, units=["x", "y"]))
    run = server.submit("lab", "printing")["id"]
    viewer = Viewer(server, run)
    while viewer.cuts < 4:
        viewer.look(1.0)
    kill(*server.processes("web"))
    while viewer.cuts < 8:
        viewer.look(1.0)
        time.sleep(0.05)
    server.wait_ready()
    server.open_gate(run)
    deadline = time.monotonic() + 60.0
    while not viewer.ended and time.monotonic() < deadline:
        viewer.look(1.0)
    assert viewer.ended
    server.passes(run)
    tasks = [task["id"] for task in server.run(run)["tasks"]]
    assert sorted(viewer.logs) == tasks
    for task in tasks:
        assert viewer.logs[task] == server.task_log(run, task)
    for log, unit in zip(server.script_logs(run), "xy", strict=True):
        lines = [line for line in log.splitlines() if line.startswith(f"{unit} ".encode())]
        assert lines == [f"{unit} {number:06}".encode() for number in range(1, len(lines) + 1)]
        assert log.count(b"\r\x1b[31m\xff\xfe\x00 bar\n") == len(lines) // 200


def test_batches_run_side_by_side(server: Server, lab: Repository) -> None:
    script = """\
work() {
    echo "start $1"
    gate
    until [ $(( number += 1 )) -gt 100000 ]; do :; done
}
each
"""
    lab.branch("busy", branch_files("number=0\n" + script, units=["p1", "p2"]))
    run = server.submit("lab", "busy")["id"]
    server.wait_log(run, "start p", times=2)
    found = server.finish(run)
    spans = []
    for step in found["steps"]:
        if step["name"] == "run":
            begun = datetime.fromisoformat(step["started_at"])
            spans.append((begun, begun + timedelta(seconds=step["seconds"]), step["task"]))
    (_, first_end, one), (second_begin, _, other) = sorted(spans)
    assert one != other
    assert second_begin < first_end
