"""Calls of the Docker SDK: its errors translated, its long calls ended from within, its build contexts packed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import docker
import requests
from docker.errors import APIError, DockerException
from docker.utils.build import create_archive
from urllib3.exceptions import HTTPError

from runner.adapters.docker_ignore import Ignore
from runner.errors import EngineRefused, EngineUnavailable, OutputRefused
from runner.files import open_inside

# A stream that breaks off comes as urllib3's own error.
FAILURES = (DockerException, requests.RequestException, HTTPError, OSError)
# How often a long call looks whether it is still wanted.
CHECK_SECONDS = 0.2
IGNORE_BYTES = 1 << 16


class Connect(Protocol):
    """Opens a connection to the engine; `timeout` in seconds, None for as long as it takes."""

    def __call__(self, *, timeout: float | None) -> docker.APIClient: ...


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise EngineUnavailable for whatever the SDK raises; its cause tells more."""
    try:
        yield
    except FAILURES as error:
        text = getattr(error, "explanation", None) or str(error)
        family = EngineRefused if isinstance(error, APIError) else EngineUnavailable
        raise family(f"The Docker engine could not {what}: {text}") from error


def long_call(
    connect: Connect, what: str, begin: Callable[[docker.APIClient], Any], check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Give what a call of minutes tells, line by line; `check` may end it, which ends it in the engine too."""
    answers: list[Any] = []
    told: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    api = connect(timeout=None)
    api.hooks["response"].append(lambda answer, **_: answers.append(answer))

    def read() -> None:
        try:
            for chunk in begin(api):
                told.put(chunk)
            told.put(None)
        except (*FAILURES, ValueError) as error:
            told.put(error)

    thread = threading.Thread(target=read, name="engine-call", daemon=True)
    thread.start()
    try:
        while True:
            check()
            try:
                item = told.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, ValueError):
                raise EngineUnavailable(f"The Docker engine could not {what}: {item}") from item
            if isinstance(item, BaseException):
                with translated(what):
                    raise item
            yield item
    finally:
        # Whoever reads in the thread is woken, and the engine sees that nobody listens.
        for answer in answers:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                answer.raw.shutdown()
        thread.join(timeout=5.0)
        for answer in answers:
            answer.close()
        api.close()


def pack_context(root: Path, extra: dict[str, bytes], check: Callable[[], None] = lambda: None) -> IO[bytes]:
    """Pack a build context as the docker client would, .dockerignore and all; links are packed as links.

    `check` is called with each path and may raise to end it. Raises OutputRefused when .dockerignore is not a regular
    file, is too large or holds what is no pattern.
    """
    try:
        with open_inside(root, ".dockerignore") as file:
            data = file.read(IGNORE_BYTES + 1)
    except FileNotFoundError:
        data = b""
    if len(data) > IGNORE_BYTES:
        raise OutputRefused(f".dockerignore has more than {IGNORE_BYTES:,} bytes.")
    lines = data.decode("utf-8", "replace").splitlines()
    ignore = Ignore(line.strip() for line in lines if not line.startswith("#"))
    # Whatever the branch has where our own files go would be in their way, a link most of all.
    ours = {name.split("/", 1)[0] for name in extra}
    files = sorted(path for path in ignore.walk(root, check) if path.split("/", 1)[0] not in ours)

    def each() -> Iterator[str]:
        for path in files:
            check()
            yield path

    packed: Any = create_archive(
        str(root),
        files=each(),
        extra_files=[(name, data.decode("utf-8", "surrogateescape")) for name, data in extra.items()],
    )
    return packed  # type: ignore[no-any-return]  # a temporary file
