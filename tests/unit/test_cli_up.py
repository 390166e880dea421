"""What `seatrial up` says, and when."""

from __future__ import annotations

import socket

import pytest

from jobs.cli_server import Announcement, left_words


def test_the_address_is_told_once_and_not_before_somebody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        look = Announcement(server.getsockname(), "Here.")
        look()
        assert capsys.readouterr().out == ""
        server.listen()
        look()
        look()
        assert capsys.readouterr().out == "Here.\n"


def test_what_goes_on_is_told_at_the_end() -> None:
    assert left_words(0) == ""
    assert left_words(1).startswith("1 run is not over: what it has in containers goes on there")
    assert left_words(2).startswith("2 runs are not over: ")
