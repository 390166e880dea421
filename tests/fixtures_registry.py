"""A registry of images that gives one answer to whatever it is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Registry:
    """A registry on 127.0.0.1, which Docker engines ask without TLS. `status` and `code`: what it answers."""

    def __init__(self) -> None:
        self.status, self.code = 503, ""
        self.image = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        ping = request.path == "/v2/"
        body = json.dumps({} if ping else {"errors": [{"code": self.code, "message": "as a test wants it"}]}).encode()
        request.send_response(200 if ping else self.status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextmanager
def serving() -> Iterator[Registry]:
    """Serve a registry; `image` is the name of an image on it."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.answer(self)

        def do_HEAD(self) -> None:
            registry.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.image = f"127.0.0.1:{server.server_port}/team/app:1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that answers 503 until it is told otherwise."""
    with serving() as made:
        yield made
