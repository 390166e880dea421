"""gunicorn's threaded worker, with the patience for clients that do not hang up moved out of its one loop."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

# As gunicorn has them: how long, and for how many bytes, a client may go on sending after its answer.
LINGER_SECONDS = 2.0
LINGER_BYTES = 65_536


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker whose loop is never held up by one client.

    gunicorn ends a connection that is not kept by waiting up to two seconds for the client to close it too, and does
    so in the loop that accepts: one browser that leaves an ended stream open delays everybody.
    """

    def handle(self, conn: Any) -> Any:
        """Answer a request, in a thread; a connection that will be closed is parted with here."""
        kept = super().handle(conn)
        if kept is False:
            linger(conn.sock)
        return kept


def linger(connection: socket.socket) -> None:
    """Say that nothing more comes, let the client finish, and leave nothing to wait for."""
    deadline = time.monotonic() + LINGER_SECONDS
    left = LINGER_BYTES
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (patience := deadline - time.monotonic()) > 0:
            connection.settimeout(patience)
            data = connection.recv(4_096)
            if not data:
                break
            left -= len(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
