"""The connection to a Docker engine, in the oldest version of its API that both sides speak."""

from __future__ import annotations

import re
from typing import Any

import docker
import requests
from docker.transport import UnixHTTPAdapter

# Engine 20.10 spoke 1.41; naming it saves a round trip a connection and keeps the oldest supported engine honest.
API_VERSION = "1.41"

_TOO_OLD = re.compile(r"client version \S+ is too old\. Minimum supported API version is (\d+\.\d+)")


class _OnePool(UnixHTTPAdapter):
    """The way to an engine's socket with one pool of connections for all addresses.

    The SDK's own keeps a pool for each of the last 25 addresses, and thus a connection for each container that was
    asked about: 25 idle sockets in every process of ours.
    """

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        """Give the pool; `url` tells nothing about the socket."""
        return super().get_connection("http+docker://localhost", proxies)


class EngineClient(docker.APIClient):
    """A client that begins with `version`, and goes on with the engine's oldest one when that is refused as too old.

    Nothing is asked before the first call, so an engine that is away does not matter until then. Such a refusal comes
    before the engine has looked at the call, which is therefore safe to make again.
    """

    def __init__(self, base_url: str | None = None, *, timeout: float | None, version: str = API_VERSION) -> None:
        given: dict[str, Any] = {"base_url": base_url} if base_url else {}
        super().__init__(version=version, timeout=timeout, **given)  # type: ignore[arg-type]  # int, say the stubs
        if isinstance(way := self.adapters.get("http+docker://"), UnixHTTPAdapter):
            self.mount("http+docker://", _OnePool(f"http+unix://{way.socket_path}", timeout))  # type: ignore[arg-type]

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, and once more in another version when the engine has left ours behind."""
        body = kwargs.get("data")
        answer = super().request(method, url, *args, **kwargs)
        told = _TOO_OLD.search(answer.text) if answer.status_code == 400 else None
        if told is None or not isinstance(url, str):
            return answer
        self._version = told[1]
        if body is not None and hasattr(body, "seek"):
            body.seek(0)
        path = re.sub(r"^/v[0-9.]+/", f"/v{told[1]}/", url.removeprefix(self.base_url))
        return super().request(method, self.base_url + path, *args, **kwargs)
