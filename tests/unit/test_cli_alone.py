"""A server that is to be the only one says so, and who is there already."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli_alone import expect_free, take_home
from jobs.cli_common import EXIT_INFRASTRUCTURE, Failure

# Takes a home, leaves a fork behind that outlives it, and waits to be killed.
OTHER = """
import os, sys, time
from pathlib import Path
from jobs.cli_alone import take_home
take_home(Path(sys.argv[1]))
fork = os.fork()
if fork:
    print(fork, flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    yield process
    process.kill()
    os.kill(fork, 9)
    process.stdout.close()
    process.wait()


def test_a_home_that_somebody_has_is_refused_by_the_name_of_its_process(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(Failure) as refused:
        take_home(tmp_path)
    assert f"running already on {tmp_path}, as process {other.pid}. End it first" in refused.value.format_message()
    assert refused.value.exit_code == EXIT_INFRASTRUCTURE


def test_a_home_is_free_when_its_server_was_killed_whatever_it_left(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    take_home(tmp_path)
    assert (tmp_path / "up.pid").read_text() == f"{os.getpid()}\n"


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match=r"server\.home: .*/file/home cannot be used: Not a directory"):
        take_home(tmp_path / "file" / "home")


def test_an_address_at_which_somebody_listens_is_refused_with_the_remedy() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(Failure) as refused:
            expect_free("127.0.0.1", port, remedy="name another one with --port", within=0.0)
    assert f"listens at 127.0.0.1:{port}, perhaps another Seatrial. End it, or name another one with --port." in (
        refused.value.format_message()
    )
    expect_free("127.0.0.1", port, remedy="", within=0.0)


def test_an_address_that_is_let_go_meanwhile_is_waited_for() -> None:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    goes = threading.Timer(0.2, server.close)
    goes.start()
    expect_free("127.0.0.1", server.getsockname()[1], remedy="", within=30.0)
    goes.join()
