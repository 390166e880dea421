"""The live stream: exact to the byte across breaks, one reader for all viewers, a limit that says so."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from web_site import Site

from jobs.adapters.sql_inside import Pulse
from jobs.run import TaskState
from runner.errors import StoreUnavailable
from web.hub import Channel, Hub
from web.sse import CHUNK


@pytest.fixture
def app(site: Site) -> Iterator[Flask]:
    app = site.app(viewers=4, config={"HEARTBEAT": 0.3})
    yield app
    hub: Hub = app.extensions["seatrial.hub"]
    hub.close()
    for _ in range(100):
        if not any(thread.name == "hub" for thread in threading.enumerate()):
            break
        time.sleep(0.02)


class Stream:
    """A viewer: parses events, gathers logs by task, remembers the last id as a browser does."""

    def __init__(self, app: Flask, run: int, query: str = "", last: str | None = None) -> None:
        headers = {"Last-Event-ID": last} if last else {}
        self.answer = app.test_client().get(f"/api/v1/runs/{run}/stream{query}", headers=headers, buffered=False)
        self.last = last or ""
        self.logs: dict[int, bytes] = {}
        self.events: list[tuple[str, Any]] = []
        self.comments = 0
        self._blocks = self._parse()

    def _parse(self) -> Iterator[dict[str, str]]:
        """Read events as the standard says: lines of one field belong together."""
        fields: dict[str, str] = {}
        for piece in self.answer.response:
            for line in (piece.encode() if isinstance(piece, str) else piece).split(b"\n")[:-1]:
                if not line:
                    yield fields
                    fields = {}
                    continue
                name, _, value = line.decode().partition(":")
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value

    def next(self) -> tuple[str, Any]:
        """Take the next event, comments aside."""
        for fields in self._blocks:
            if "data" not in fields:
                self.comments += "" in fields
                continue
            self.last = fields["id"]
            head, _, text = fields["data"].partition("\n")
            kind, data = fields["event"], json.loads(head)
            if kind == "log":
                body = base64.b64decode(data["base64"]) if "base64" in data else text.replace("\x1f", "\n").encode()
                data["bytes"] = body
                held = self.logs.setdefault(data["task"], b"")
                self.logs[data["task"]] = held[: data["offset"]] + body
            self.events.append((kind, data))
            return kind, data
        return "closed", None

    def until(self, wanted: str, most: int = 10_000) -> Any:
        for _ in range(most):
            kind, data = self.next()
            if kind in (wanted, "closed"):
                assert kind == wanted, f"the stream ended before {wanted}"
                return data
        raise AssertionError(wanted)

    def close(self) -> None:
        self.answer.close()


def test_a_finished_run_gives_all_and_ends(site: Site, app: Flask) -> None:
    run = site.passed(["a/pl", "b/pl"])
    stream = Stream(app, run.id)
    assert stream.answer.mimetype == "text/event-stream"
    stream.until("end")
    kinds = [kind for kind, _ in stream.events]
    assert kinds[:2] == ["run", "steps"]
    assert stream.events[0][1]["state"] == "done"
    for task in site.service.tasks(run.id):
        assert stream.logs.get(task.id, b"") == b"".join(site.service.open_log(task.id))
    assert app.extensions["seatrial.hub"].viewers == 1
    stream.close()
    assert app.extensions["seatrial.hub"].viewers == 0


def test_a_broken_stream_goes_on_at_the_exact_byte(site: Site, app: Flask) -> None:
    run = site.submit()
    claim = site.claim()
    data = bytes(range(256)) * 1_200  # 300 KiB, not UTF-8
    for at in range(0, len(data), 30_000):
        site.log(claim, data[at : at + 30_000])
    seen, last = b"", None
    for _ in range(3):  # cut after each chunk or two
        stream = Stream(app, run.id, last=last)
        stream.logs[claim.task.id] = seen
        stream.until("log")
        seen, last = stream.logs[claim.task.id], stream.last
        stream.close()
        assert seen == data[: len(seen)]
    assert 3 * 30_000 <= len(seen) <= 3 * CHUNK
    site.log(claim, b"after the break")
    site.end(claim, TaskState.CANCELLED)
    stream = Stream(app, run.id, last=last)
    stream.logs[claim.task.id] = seen
    stream.until("end")
    assert stream.logs[claim.task.id] == data + b"after the break"
    stream.close()


def test_what_happens_arrives_at_once_and_once(site: Site, app: Flask) -> None:
    run = site.submit()
    claim = site.claim()
    stream = Stream(app, run.id)
    stream.until("steps")
    delays = []
    for n in range(5):
        line = b"line %d\n" % n
        site.log(claim, line)
        begun = time.perf_counter()
        data = stream.until("log")
        delays.append(time.perf_counter() - begun)
        assert data["bytes"] == line
        assert "base64" not in data
    assert min(delays) < 0.5  # each would take as long if it came with something else; a busy machine delays some
    site.step(claim, "image", 1.0)
    assert "image" in {step["name"] for step in stream.until("steps")}
    stream.close()


def test_a_new_tasks_log_is_followed_too(site: Site, app: Flask) -> None:
    run = site.submit()
    stream = Stream(app, run.id)
    stream.until("steps")
    site.prepare(["a", "b"], batches=2)
    claim = site.claim()
    site.log(claim, b"batch speaks\n")
    while claim.task.id not in stream.logs:
        stream.until("log")
    assert stream.logs[claim.task.id] == b"batch speaks\n"
    stream.close()


def test_only_what_was_asked_for_is_sent(site: Site, app: Flask) -> None:
    run = site.passed(["a", "b"])
    tasks = site.service.tasks(run.id)
    one = Stream(app, run.id, f"?logs={tasks[1].id}&view=page")
    one.until("end")
    assert set(one.logs) == {tasks[1].id}
    assert "Passed" in next(data for kind, data in one.events if kind == "page")["html"]
    none = Stream(app, run.id, "?logs=none")
    none.until("end")
    assert none.logs == {}
    one.close()
    none.close()


def test_a_run_that_ends_while_its_log_is_read_ends_after_the_last_byte(
    site: Site, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.hub.READ_AT_ONCE", 30_000)  # a tick's share; the log needs ten of them
    run = site.submit()
    claim = site.claim()
    streams = [Stream(app, run.id), Stream(app, run.id, f"?logs={claim.task.id}")]
    for stream in streams:
        stream.until("steps")
    data = b"".join(b"line %d\n" % n for n in range(28_000))
    site.log(claim, data)
    site.end(claim, TaskState.CANCELLED)
    assert site.service.run(run.id).state.final
    for stream in streams:
        stream.until("end")
        assert stream.logs[claim.task.id] == data
        stream.close()


def test_a_run_that_ends_just_after_the_sizes_were_read_ends_after_the_last_byte(
    site: Site, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.submit()
    claim = site.claim()
    site.log(claim, b"first\n")
    stream = Stream(app, run.id)
    while claim.task.id not in stream.logs:
        stream.until("log")
    monkeypatch.setattr("web.hub.SNAPSHOT_EVERY", 0.0)  # the next change makes a new one at once
    pulses = site.service.pulses
    late = [b"the error\n"]

    def before_the_end(runs: Sequence[int]) -> dict[int, Pulse]:
        found = pulses(runs)
        if late:
            site.log(claim, late.pop())
            site.end(claim, TaskState.CANCELLED)
        return found

    monkeypatch.setattr(site.service, "pulses", before_the_end)
    site.step(claim, "image", 1.0)
    stream.until("end")
    assert stream.logs[claim.task.id] == b"first\nthe error\n"
    stream.close()


def test_a_silent_stream_has_a_heartbeat(site: Site, app: Flask) -> None:
    run = site.submit()
    stream = Stream(app, run.id)
    stream.until("steps")
    piece = next(iter(stream.answer.response))
    assert (piece if isinstance(piece, bytes) else piece.encode()).startswith(b":")
    stream.close()


def test_what_others_do_changes_what_a_run_waits_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run takes the slot just after a snapshot was made, and nothing else happens."""
    site.submit()
    waiting = site.submit()
    site.worker()
    channel = Channel(site.service, waiting.id, None)
    seen = site.service.pulses([waiting.id])[waiting.id]
    monkeypatch.setattr("web.hub.SNAPSHOT_EVERY", 0.0)
    channel.refresh(seen, changed=True)
    assert json.loads(channel.snapshot.run)["waiting"]["code"] == "about_to_start"
    site.claim()
    monkeypatch.setattr("web.hub.WAITING_EVERY", 60.0)
    channel.refresh(seen, changed=True)
    monkeypatch.setattr("web.hub.WAITING_EVERY", 0.0)
    channel.refresh(None, changed=False)
    assert json.loads(channel.snapshot.run)["waiting"]["code"] == "slots_busy"


def test_a_viewer_is_told_while_the_records_do_not_answer(
    site: Site, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.submit()
    stream = Stream(app, run.id)
    stream.until("steps")

    def away() -> int:
        raise StoreUnavailable("The store does not answer: the server closed the connection")

    with monkeypatch.context() as outage:
        outage.setattr(site.service, "pulse", away)
        assert "records do not answer" in stream.until("away")["text"]
    assert stream.until("away") == {"text": ""}
    stream.close()


def test_too_many_viewers_are_told(site: Site, app: Flask) -> None:
    run = site.submit()
    streams = [Stream(app, run.id) for _ in range(4)]
    refused = app.test_client().get(f"/api/v1/runs/{run.id}/stream")
    assert (refused.status_code, refused.json["code"]) == (503, "too_many_viewers")
    assert "4 viewers" in refused.json["detail"]
    streams.pop().close()
    again = Stream(app, run.id)
    assert again.answer.status_code == 200
    for stream in [*streams, again]:
        stream.close()


def test_a06_one_reader_serves_all_viewers(site: Site, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.submit()
    claim = site.claim()
    other = site.submit()
    streams = [Stream(app, run.id) for _ in range(3)]
    elsewhere = Stream(app, other.id)
    for stream in [*streams, elsewhere]:
        stream.until("steps")
    site.log(claim, b"y")
    for stream in streams:  # from here on the hub knows them all
        stream.until("log")
    read: list[tuple[int, int]] = []
    asked: list[object] = []
    open_log, pulses = site.service.open_log, site.service.pulses

    def counted(task: int, *, offset: int = 0, end: int | None = None, block: int = CHUNK) -> Iterator[bytes]:
        assert threading.current_thread().name == "hub", "a viewer read the store by itself"
        read.append((task, offset))
        return open_log(task, offset=offset, end=end, block=block)

    def asked_once(runs: Sequence[int]) -> dict[int, Pulse]:
        asked.append(runs)
        return pulses(runs)

    monkeypatch.setattr(site.service, "open_log", counted)
    monkeypatch.setattr(site.service, "pulses", asked_once)
    site.log(claim, b"x" * 5_000)
    for stream in streams:
        stream.until("log")
        assert stream.logs[claim.task.id] == b"y" + b"x" * 5_000
    assert read == [(claim.task.id, 1)]
    assert asked[1:] == [[run.id, other.id]] * len(asked[1:]), "the first may have been begun before all were there"
    assert sum(thread.name == "hub" for thread in threading.enumerate()) == 1
    for stream in [*streams, elsewhere]:
        stream.close()


def test_text_goes_as_text_across_the_borders_of_pieces(site: Site, app: Flask) -> None:
    run = site.submit()
    claim = site.claim()
    live = Stream(app, run.id)
    live.until("steps")
    data = "".join(f"{n}: größer als 1 € 🚢\n" for n in range(9_000)).encode()
    for at in range(0, len(data), 50_001):
        site.log(claim, data[at : at + 50_001])
    late = Stream(app, run.id)
    for stream in (late, live):
        while len(stream.logs.get(claim.task.id, b"")) < len(data):
            stream.until("log")
        assert stream.logs[claim.task.id] == data
        stream.close()
    pieces = [head for kind, head in late.events if kind == "log"]
    assert not any("base64" in head for head in pieces)
    assert max(len(head["bytes"]) for head in pieces) <= CHUNK + 3


def test_the_reader_outlives_an_outage(site: Site, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.submit()
    claim = site.claim()
    stream = Stream(app, run.id)
    stream.until("steps")

    asked = threading.Semaphore(0)

    def down() -> int:
        asked.release()
        raise OSError("the store does not answer")

    monkeypatch.setattr(site.service, "pulse", down)
    for _ in range(3):
        assert asked.acquire(timeout=30)
    site.log(claim, b"during the outage\n")
    monkeypatch.undo()
    stream.until("log")
    assert stream.logs[claim.task.id] == b"during the outage\n"
    stream.close()


def test_a_stopping_server_lets_go_of_its_viewers(site: Site, app: Flask) -> None:
    run = site.submit()
    stream = Stream(app, run.id)
    stream.until("steps")
    hub: Hub = app.extensions["seatrial.hub"]
    hub.stop_when(lambda: True)
    while stream.next()[0] != "closed":  # it would have a heartbeat for ever
        pass
    stream.close()
    refused = app.test_client().get(f"/api/v1/runs/{run.id}/stream")
    assert refused.json["code"] == "shutting_down"


@pytest.mark.parametrize(
    ("query", "last"), [("?logs=some", None), ("?cursor=x", None), ("", "1;2"), ("?view=odd", None)]
)
def test_bad_input_is_refused(site: Site, app: Flask, query: str, last: str | None) -> None:
    run = site.submit()
    stream = Stream(app, run.id, query, last)
    assert stream.answer.status_code == 422
    stream.close()
    missing = Stream(app, 99)
    assert missing.answer.status_code == 404
    missing.close()
