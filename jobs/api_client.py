"""Speak to a server's JSON API: documents, bytes, and refusals as errors in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from runner.errors import InfraError, RequestError

API = "/api/v1"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
# A submission waits for the project's mirror; its first fetch copies the whole repository (as long as a fetch may take).
SUBMIT_SECONDS = 1_830.0
PIECE = 1 << 18

Document = dict[str, Any]


class ServerUnreachable(InfraError):
    """The Seatrial server does not answer."""

    code = "server_unreachable"


class ServerFailed(InfraError):
    """The Seatrial server could not do what was asked."""

    code = "server_failed"


class ApiRefused(RequestError):
    """The Seatrial server refused the request."""

    code = "refused"


class ApiClient:
    """One server. Raises ApiRefused (the caller's fault), ServerFailed and ServerUnreachable (the world's)."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = check_url(url)
        self._http = httpx.Client(
            base_url=self.url + API,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            # A proxy of the environment leads nowhere for a server on this machine.
            trust_env=not _is_loopback(self.url),
            transport=transport,
            headers={"User-Agent": "seatrial-cli"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # ---- documents -----------------------------------------------------------------------------------------

    def get(self, path: str, /, **query: object) -> Document:
        """Read a document; what is None is not asked for."""
        with self._told():
            return self._document(self._http.get(path, params=_given(query)))

    def post(self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> Document:
        """Ask for something to be done; `key` is an idempotency key."""
        headers = {} if key is None else {"Idempotency-Key": key}
        timeout = httpx.Timeout(SUBMIT_SECONDS, connect=CONNECT_SECONDS)
        with self._told():
            return self._document(self._http.post(path, json=dict(body or {}), headers=headers, timeout=timeout))

    def pages(self, path: str, /, **query: object) -> Iterator[Document]:
        """Read a list page by page."""
        page = self.get(path, **query)
        yield page
        while page.get("next"):
            page = self.get(str(page["next"]).removeprefix(API))
            yield page

    def run(self, run: int) -> Document:
        """Read a run with its tasks, steps and estimate."""
        return self.get(f"/runs/{run}")

    def healthy(self) -> bool:
        """Tell whether the server, what it needs and a worker are there."""
        with self._told():
            answer = self._http.get(f"{self.url}/healthz")
            return answer.status_code != 503 and self._document(answer).get("healthy") is True

    # ---- bytes ---------------------------------------------------------------------------------------------

    @contextmanager
    def stream(self, path: str, /, **query: object) -> Iterator[httpx.Response]:
        """Open bytes; read them with `iter_raw(PIECE)` inside of the block, where errors are told in words."""
        with self._told(), self._http.stream("GET", path, params=_given(query), headers=_IDENTITY) as answer:
            if not answer.is_success:
                answer.read()
                self._document(answer)
            if "Content-Disposition" not in answer.headers:  # each log and output of Seatrial is a file to keep
                raise self._foreign(answer)
            yield answer

    # ---- inner ---------------------------------------------------------------------------------------------

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise ServerUnreachable(f"The Seatrial server at {self.url} did not answer in time. {_REMEDY}") from None
        except httpx.RemoteProtocolError as error:
            raise ServerUnreachable(f"The connection to {self.url} broke: {error}.") from None
        except httpx.HTTPError as error:
            raise ServerUnreachable(f"No Seatrial server answers at {self.url}: {error}. {_REMEDY}") from None

    def _document(self, answer: httpx.Response) -> Document:
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or not (answer.is_success or "detail" in found):
            raise self._foreign(answer)
        if answer.is_success:
            return found
        text = problem_words(found)
        raise ServerFailed(text) if answer.status_code >= 500 else ApiRefused(text)

    def _foreign(self, answer: httpx.Response) -> ServerUnreachable:
        status = f"status {answer.status_code}"
        return ServerUnreachable(f"What answers at {self.url} is not Seatrial's API ({status}). {_REMEDY}")


_IDENTITY = {"Accept-Encoding": "identity"}
_REMEDY = "Start it with `seatrial up` (which takes a few seconds), or name another one with --server."


def check_url(url: str) -> str:
    """Check a server's address; raises RequestError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        good = False
    if not good:
        raise RequestError(
            f"{url!r} is not the address of a server.", field="server", value=url, remedy="Give http://host:port"
        )
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _given(query: Mapping[str, object]) -> dict[str, str] | None:
    # None, not {}: httpx would take an empty one for "without the query of the path".
    return {key: str(value) for key, value in query.items() if value is not None} or None


def part(text: str, *, slashes: bool = False) -> str:
    """Quote a piece of a path."""
    return quote(text, safe="/" if slashes else "")


def problem_words(problem: Document) -> str:
    """Write a problem document (RFC 9457): what is wrong, each field with its value, and its remedy."""
    detail = str(problem.get("detail") or problem.get("title") or "The server refused the request.")
    lines = [detail]
    for item in problem.get("errors") or []:
        line = f"line {item['line']}: " if item.get("line") is not None else ""
        message = str(item.get("message") or "")
        value = "" if item.get("value") is None else str(item["value"])
        given = f" (given: {value})" if value and message else ""
        # A single refusal is its own detail: once is enough.
        told = f"{line}{item.get('key')}: {value if message == detail else message + given}".rstrip(": ")
        if told not in detail:
            lines.append(f"  {told}")
        remedy = item.get("remedy")
        if remedy and str(remedy) not in detail:
            lines.append(f"  {remedy}")
    return "\n".join(lines)
