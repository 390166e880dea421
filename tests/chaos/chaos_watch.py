"""Two who look on: one at the Docker engine's own events, one at the API as a page does."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import docker
import httpx
from chaos_history import History
from fixtures_server import Server

LOOK_SECONDS = 0.2


class Watch:
    """Notes what it sees in the history, until left. `installation`: the mark of the containers; `server`: whose API."""

    def __init__(self, installation: str, history: History, server: Server | None = None) -> None:
        self._history = history
        self._stop = threading.Event()
        self._client = docker.from_env()
        filters = {"type": "container", "label": [f"seatrial.installation={installation}"]}
        self._events: Any = self._client.events(decode=True, filters=filters)
        looks = [self._engine] + ([] if server is None else [lambda: self._api(server)])
        self._threads = [threading.Thread(target=look, daemon=True) for look in looks]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._events.close()
        self._client.close()
        for thread in self._threads:
            thread.join(5.0)

    def _engine(self) -> None:
        with suppress(OSError, ValueError, AttributeError):  # closed from outside while it reads
            for event in self._events:
                labels = event["Actor"]["Attributes"]
                if labels.get("seatrial.kind") == "workspace" and event["Action"] in (
                    "create",
                    "start",
                    "die",
                    "destroy",
                ):
                    task = int(labels["seatrial.task"])
                    self._history.note("engine", action=event["Action"], name=labels["name"], task=task)

    def _api(self, server: Server) -> None:
        shown: dict[int, tuple[object, ...]] = {}
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(httpx.HTTPError, AssertionError):  # web may be on its way back
                for run in server.get("/runs", limit=100)["runs"]:
                    units = run["units"]
                    seen = (run["state"], units["done"], units["failed"])
                    if shown.get(run["id"]) != seen:
                        shown[run["id"]] = seen
                        self._history.note("seen", run=run["id"], state=seen[0], done=seen[1], failed=seen[2])
