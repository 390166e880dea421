"""Engines that have left the oldest version of the API behind, as Docker 29 and later have."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runner.adapters.docker_client import API_VERSION, EngineClient
from runner.adapters.docker_engine import DockerEngine
from runner.adapters.docker_images import BuiltImages
from runner.errors import EngineRefused

REFUSAL = (
    "client version 1.41 is too old. Minimum supported API version is {}, please upgrade your client to a newer version"
)


class Newer(ThreadingHTTPServer):
    """An engine that speaks no version below `oldest`, and says so in the words of Docker's own."""

    def __init__(self, oldest: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.oldest = oldest
        self.asked: list[str] = []
        self.taken: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Newer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.server.asked.append(self.path)
        _, version, what = self.path.split("/", 2)
        if version == f"v{API_VERSION}":
            self._say(400, {"message": REFUSAL.format(self.server.oldest)})
        elif version != "v1.44":
            self._say(400, {"message": f"client version {version[1:]} is not known here"})
        else:
            self.server.taken.append(body)
            self._say(200, [] if what.startswith(("containers", "images")) else {"ServerVersion": "29.1.3"})

    def _say(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _serving(oldest: str) -> Iterator[Newer]:
    server = Newer(oldest)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def newer() -> Iterator[Newer]:
    yield from _serving("1.44")


@pytest.fixture
def strange() -> Iterator[Newer]:
    """An engine that refuses the version that it asked for, too."""
    yield from _serving("1.99")


def test_a_newer_engine_is_spoken_to_in_its_own_oldest_version(newer: Newer) -> None:
    engine = DockerEngine(newer.url)
    assert engine.api_version == API_VERSION
    assert engine.info() == {"ServerVersion": "29.1.3"}
    assert engine.api_version == "1.44"
    assert engine.find(run="1") == []
    assert [path.partition("?")[0] for path in newer.asked] == [
        "/v1.41/info",
        "/v1.44/info",
        "/v1.44/containers/json",
    ]
    engine.close()


def test_images_of_a_newer_engine_are_listed(newer: Newer) -> None:
    images = BuiltImages(newer.url)
    assert images.built() == {}
    images.close()


def test_a_body_is_sent_whole_the_second_time(newer: Newer) -> None:
    with EngineClient(newer.url, timeout=5.0) as client:
        answer = client.post(f"{newer.url}/v{API_VERSION}/build", data=io.BytesIO(b"a context"))
    assert (answer.status_code, newer.taken) == (200, [b"a context"])


def test_an_engine_that_refuses_every_version_is_asked_twice_and_no_more(strange: Newer) -> None:
    engine = DockerEngine(strange.url)
    with pytest.raises(EngineRefused, match="not known here"):
        engine.info()
    assert strange.asked == ["/v1.41/info", "/v1.99/info"]
    engine.close()
