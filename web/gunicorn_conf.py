"""How gunicorn runs the application: one process, because its threads share one reader of the store."""

from __future__ import annotations

import os
import signal
from typing import Any

from jobs.settings import settings_from_process
from runner.parent import end_with_parent
from web.app import VIEWERS, follow_server

bind = settings_from_process().server.listen
# What a list of processes shows; the others of a server name themselves alike.
proc_name = " ".join(["seatrial", "--config", os.environ.get("SEATRIAL_CONFIG", "seatrial.toml"), "web"])
worker_class = "web.gunicorn_worker.Worker"
workers = 1
# Each live viewer holds a thread; the rest answer everything else.
threads = VIEWERS + 40
graceful_timeout = 3
timeout = 60
keepalive = 5
# A viewer of the logs of a whole run says where he stands in each: in the address (this is gunicorn's most) when a page
# is opened, in the header Last-Event-ID when its stream broke.
limit_request_line = 8_190
limit_request_field_size = 32_768
accesslog = None
forwarded_allow_ips = ""
# Nobody needs to command the server at run time.
control_socket_disable = True


def post_fork(_server: Any, worker: Any) -> None:
    """End with a master that was killed: it alone ends a worker that waits for a client who does not take his answer."""
    end_with_parent(worker.ppid, signal.SIGKILL)


def post_worker_init(worker: Any) -> None:
    """End live streams when the worker is told to stop."""
    follow_server(worker.wsgi, lambda: not worker.alive)
