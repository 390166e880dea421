"""Fixtures: a store that speaks S3 over HTTP (moto in a process of its own), and a road to it that can be cut."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from fixtures_postgres import free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
# Whatever the developer's own settings of AWS are, no test meets them.
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")


# A client reads the description of S3 from a large file of JSON; that of all clients of a test process is the same.
botocore.session.create_loader = cache(botocore.session.create_loader)


class S3Server:
    """A moto server. `client` looks behind the product's back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = boto3.session.Session(
            aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1"
        ).client("s3", endpoint_url=self.url, config=Config(s3={"addressing_style": "path"}))

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"NO_PROXY": "127.0.0.1"},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
                return
            assert self._process.poll() is None, "the moto server ended"
            assert time.monotonic() < deadline, "the moto server does not answer"
            time.sleep(0.05)

    def end(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def bucket(self) -> str:
        """Make a bucket of a new name."""
        name = f"seatrial-{secrets.token_hex(4)}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def uploads(self, bucket: str) -> list[str]:
        """List the uploads that were begun and not ended."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.end()


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Credentials as the environment of a process has them."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return CREDENTIALS


@pytest.fixture
def s3_bucket(s3_server: S3Server, s3_credentials: dict[str, str]) -> str:
    """A bucket of one's own, and the credentials for it."""
    return s3_server.bucket()
