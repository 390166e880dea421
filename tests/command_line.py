"""The command line beside a server that answers on a real port, in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from click.testing import CliRunner, Result
from flask import Flask
from werkzeug.serving import make_server

from jobs.cli import main

Seatrial = Callable[..., Result]


@contextmanager
def command_line(app: Flask) -> Iterator[Seatrial]:
    """Serve the app and give what calls `seatrial WORDS` beside it, and holds the exit code to `code`."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def run(*words: str, code: int = 0) -> Result:
        found = CliRunner().invoke(main, [*words, "--server", f"http://127.0.0.1:{server.port}"])
        assert found.exit_code == code, found.output
        return found

    yield run
    server.shutdown()
    thread.join()
    server.server_close()
