"""See that a server which is about to start is the only one: in its home, and at its address."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from jobs.cli_common import EXIT_INFRASTRUCTURE, Failure

LOCK = "up.pid"
PATIENCE = 10.0  # seconds that what a killed server started has to let go of its address


def take_home(home: Path) -> None:
    """Keep a home for this process until it ends, however that is; raises Failure when another one has it.

    It is no lock that forks inherit: a slot that hangs when its server was killed keeps nobody from starting again.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # closed by the end of the process
    except OSError as error:
        text = f"server.home: {home} cannot be used: {error.strerror}. Give it to this user, or set another one."
        raise Failure(text, EXIT_INFRASTRUCTURE) from None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        who = os.pread(file, 20, 0).decode().strip()
        os.close(file)
        text = f"`seatrial up` is running already on {home}" + (f", as process {who}." if who else ".")
        raise Failure(f"{text} End it first, or set another server.home.", EXIT_INFRASTRUCTURE) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)


def expect_free(host: str, port: int, *, remedy: str, within: float = PATIENCE) -> None:
    """Return when nobody listens at an address; raises Failure, with what to do about it, when that took too long."""
    deadline = time.monotonic() + within
    while _is_taken(host, port):
        if time.monotonic() >= deadline:
            text = f"Another program listens at {host}:{port}, perhaps another Seatrial. End it, or {remedy}."
            raise Failure(text, EXIT_INFRASTRUCTURE)
        time.sleep(0.1)


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does: a closed link is nobody
        try:
            trial.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE  # about anything else the web server speaks for itself
    return False
