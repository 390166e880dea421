"""Waiting for a run, following its logs: against a server that is played by a table of answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from jobs import cli_client, cli_files
from jobs.api_client import ApiClient, ApiRefused, ServerFailed, ServerUnreachable
from jobs.cli_client import Lines, Patience, exit_code, watch
from jobs.cli_common import Failure
from jobs.cli_files import LINE_LIMIT, Follower

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_client, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(cli_files, "POLL_SECONDS", 0.0)


def client(handler: Handler) -> ApiClient:
    return ApiClient("http://127.0.0.1:1", transport=httpx.MockTransport(handler))


def a_run(
    state: str = "running", *, done: int = 0, total: int | None = 10, tasks: tuple[Any, ...] = ()
) -> dict[str, Any]:
    return {
        "id": 7,
        "state": state,
        "verdict": "passed" if state == "done" else None,
        "units": {"total": total, "done": done, "failed": 0},
        "steps": [],
        "estimate": None,
        "waiting": None,
        "outputs_removed": None,
        "tasks": list(tasks),
    }


def a_task(number: int, size: int, state: str = "running") -> dict[str, Any]:
    kind = "prepare" if number == 1 else "verify"
    return {"id": number, "leg": "candidate", "kind": kind, "batch": number - 1, "state": state, "log_size": size}


# ---- answers -----------------------------------------------------------------------------------------------


def test_health_is_told_by_the_server_itself() -> None:
    for status, healthy in ((200, True), (503, False)):
        answer = httpx.Response(status, json={"healthy": healthy, "problems": [] if healthy else ["No worker."]})

        def handler(request: httpx.Request, answer: httpx.Response = answer) -> httpx.Response:
            assert request.url.path == "/healthz"
            return answer

        assert client(handler).healthy() is healthy
    with pytest.raises(ServerUnreachable, match="not Seatrial's API"):
        client(lambda _: httpx.Response(200, text="<html>welcome to nginx</html>")).healthy()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(404, json={"detail": "There is no run 7.", "errors": []}), ApiRefused),
        (httpx.Response(503, json={"detail": "The remote did not answer.", "errors": []}), ServerFailed),
        (httpx.Response(200, text="<html>welcome to nginx</html>"), ServerUnreachable),
        (httpx.Response(200, json=[1]), ServerUnreachable),
        (httpx.Response(404, json={"error": "other"}), ServerUnreachable),
        (httpx.Response(302, headers={"Location": "http://x/"}), ServerUnreachable),
    ],
)
def test_answers_that_are_none_become_errors_in_words(answer: httpx.Response, error: type[Exception]) -> None:
    with client(lambda _: answer) as one, pytest.raises(error):
        one.run(7)
    with client(lambda _: answer) as one, pytest.raises(error), one.stream("/runs/7/log"):
        pass


def test_a_list_is_read_to_its_end() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        second = "before" in request.url.params
        assert request.url.params["state"] == "failed"
        following = None if second else "/api/v1/runs?state=failed&limit=1&before=3"
        return httpx.Response(200, json={"runs": [1 if second else 3], "next": following})

    with client(handler) as one:
        assert [page["runs"] for page in one.pages("/runs", state="failed", user=None)] == [[3], [1]]


# ---- waiting -----------------------------------------------------------------------------------------------


def test_waiting_outlasts_a_restart_of_the_server_and_ends_with_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Any] = [
        a_run(),
        httpx.ConnectError("refused"),
        httpx.Response(502),
        a_run("interrupted"),
        a_run("done"),
    ]

    def handler(_: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    shown: list[str] = []
    with client(handler) as one:
        found = watch(one, 7, lambda run: shown.append(run["state"]))
    assert (found["verdict"], shown) == ("passed", ["running", "interrupted", "done"])
    assert capsys.readouterr().err.count("Trying again") == 1


def test_patience_ends(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    patience = Patience(60, lambda: now[0])
    for at in (0.0, 30.0, 59.0):
        now[0] = at
        with patience.look():
            raise ServerUnreachable("away.")
    now[0] = 60.0
    with pytest.raises(ServerUnreachable), patience.look():
        raise ServerUnreachable("away.")
    with patience.look():
        pass
    with patience.look():  # after a good answer it begins anew
        raise ServerUnreachable("away.")


def test_a_refusal_is_not_waited_for() -> None:
    gone = httpx.Response(404, json={"detail": "There is no run 7.", "errors": []})
    with client(lambda _: gone) as one, pytest.raises(ApiRefused):
        watch(one, 7, lambda _: None)


@pytest.mark.parametrize(
    ("state", "verdict", "code"),
    [
        ("done", "passed", 0),
        ("done", "different", 1),
        ("failed", None, 1),
        ("cancelled", None, 1),
        ("errored", None, 3),
    ],
)
def test_the_exit_code_is_the_verdict(state: str, verdict: str | None, code: int) -> None:
    assert exit_code({"state": state, "verdict": verdict}) == code


def test_lines_are_few() -> None:
    now, said = [0.0], list[str]()
    lines = Lines(lambda: now[0], said.append)
    lines.show(a_run("queued", total=None))
    for done in range(1001):
        lines.show(a_run("running", done=done, total=1000))
    now[0] = 31.0
    lines.show(a_run("running", done=1000, total=1000))
    assert len(said) == 1 + 11
    lines.show(a_run("done", done=1000, total=1000))
    assert (said[0], said[-1]) == ("run 7: queued", "run 7: passed, 1000/1000 units")


# ---- following logs ----------------------------------------------------------------------------------------


class Growing:
    """Logs that grow from one look to the next, and a connection that breaks now and then."""

    def __init__(self, looks: list[dict[int, bytes]], *, final: str = "done", broken: tuple[int, ...] = ()) -> None:
        self.looks = looks
        self.final = final
        self.broken = set(broken)
        self.at = -1
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests in self.broken:
            raise httpx.ReadError("reset")
        if not request.url.path.endswith("/log"):
            self.at = min(self.at + 1, len(self.looks) - 1)
            over = self.at == len(self.looks) - 1
            state = self.final if over else "running"
            logs = self.looks[self.at]
            return httpx.Response(
                200, json=a_run(state, tasks=tuple(a_task(n, len(log), state) for n, log in logs.items()))
            )
        task = int(request.url.path.split("/")[-2])
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        piece = httpx.ByteStream(self.looks[self.at][task][offset : offset + limit])
        return httpx.Response(200, headers={"Content-Disposition": "attachment"}, stream=piece)


def followed(server: Growing, task: int | None = None) -> bytes:
    with client(server) as one:
        return b"".join(Follower(one, 7, task).pieces())


def test_a_single_log_is_followed_byte_by_byte_across_breaks() -> None:
    whole = bytes(range(256)) * 40
    looks = [{1: b""}, {1: whole[:3]}, {1: whole[:5000]}, {1: whole[:5000]}, {1: whole}, {1: whole}]
    assert followed(Growing(looks, broken=(3, 5, 6)), 1) == whole


def test_logs_that_grow_at_once_come_in_whole_lines_under_headers() -> None:
    looks = [
        {1: b"pre"},
        {1: b"prepared\n", 2: b"a1\na"},
        {1: b"prepared\n", 2: b"a1\na2\n", 3: b"b1\n"},
        {1: b"prepared\n", 2: b"a1\na2\n", 3: b"b1\nno end"},
    ]
    assert followed(Growing(looks)) == (
        b"==> task 1: prepare <==\nprepared\n==> task 2: batch 1 <==\na1\na2\n==> task 3: batch 2 <==\nb1\nno end"
    )


def test_a_line_without_end_is_not_held_back_for_ever_and_a_header_begins_a_line() -> None:
    long = b"x" * (LINE_LIMIT + 1)
    text = followed(Growing([{1: long, 2: b""}, {1: long, 2: b"y\n"}]))
    assert text == b"==> task 1: prepare <==\n" + long + b"\n==> task 2: batch 1 <==\ny\n"


def test_a_task_of_another_run_is_refused() -> None:
    with pytest.raises(Failure, match="Run 7 has no task 9"):
        followed(Growing([{1: b"x"}]), 9)
