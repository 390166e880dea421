"""The images that Seatrial built on an engine: list them, retire them, remove them. No other image is ever touched."""

from __future__ import annotations

from typing import Any

from docker.errors import APIError

from runner.adapters.docker_calls import translated
from runner.adapters.docker_client import EngineClient
from runner.adapters.docker_engine import LABEL
from runner.errors import EngineUnavailable

BUILT = "seatrial/build"
RETIRED = "seatrial/retired"


class BuiltImages:
    """Images with our label under our names: `seatrial/build:KEY`, and `seatrial/retired:KEY` before they go.

    A retired image is not found by its old name any more, and still there for whoever has found it already.
    """

    def __init__(self, base_url: str | None = None, *, timeout: float = 60.0) -> None:
        self._base_url, self._timeout = base_url, timeout
        self._client: Any = None

    @property
    def _api(self) -> Any:
        if self._client is None:
            with translated("be reached"):
                self._client = EngineClient(self._base_url, timeout=self._timeout)
        return self._client

    def built(self) -> dict[str, int]:
        """Give the images that can be found, name → bytes."""
        return self._list(BUILT)

    def retired(self) -> dict[str, int]:
        """Give the images that wait for their removal, name → bytes."""
        return self._list(RETIRED)

    def _list(self, repository: str) -> dict[str, int]:
        with translated(f"list {repository}"):
            found = self._api.images(name=repository, filters={"label": f"{LABEL}build=1"})
        names = {tag: image["Size"] for image in found for tag in image.get("RepoTags") or ()}
        return {name: size for name, size in names.items() if name.startswith(f"{repository}:")}

    def retire(self, name: str) -> None:
        """Take its name from a built image and give it that of a retired one; safe to call twice."""
        self._check(name, BUILT)
        key = name.partition(":")[2]
        try:
            with translated(f"retire {name}"):
                self._api.tag(name, RETIRED, key)
                self._api.remove_image(name)  # it has the other name, so this takes the name only
        except EngineUnavailable as error:
            if _status(error) != 404:
                raise

    def remove(self, name: str) -> bool:
        """Remove a retired image; False when a container uses it. Safe to call twice."""
        self._check(name, RETIRED)
        try:
            with translated(f"remove {name}"):
                self._api.remove_image(name)
        except EngineUnavailable as error:
            if _status(error) == 409:
                return False
            if _status(error) != 404:
                raise
        return True

    @staticmethod
    def _check(name: str, repository: str) -> None:
        if not name.startswith(f"{repository}:"):
            raise ValueError(f"not one of ours to remove: {name}")

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _status(error: EngineUnavailable) -> int | None:
    cause = error.__cause__
    return cause.status_code if isinstance(cause, APIError) else None
