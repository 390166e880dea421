"""A browser that follows a log through whatever breaks connections sees each line once, in order, without a reload."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from fixtures_postgres import free_port
from playwright.sync_api import Browser, Page, expect
from web_site import Site

from jobs.adapters.sql_tasks import Claim

LINES = 90


@dataclass
class Web:
    """The server as it is deployed, which can be killed and started again at its address."""

    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        environment["SEATRIAL_SERVER__LISTEN"] = f"127.0.0.1:{self.port}"
        environment["SEATRIAL_CONFIG"] = str(self.root / "seatrial.toml")
        command = [sys.executable, "-m", "gunicorn", "--config", "python:web.gunicorn_conf", "web.wsgi:main()"]
        with (self.root / "web.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        for _ in range(300):
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False)
                return
            assert self.process.poll() is None, (self.root / "web.log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.root / "web.log").read_text())

    def kill(self) -> None:
        """Kill master and workers at once, as the kernel does when memory runs out."""
        assert self.process is not None
        workers = psutil.Process(self.process.pid).children()
        for process in (self.process, *workers):
            process.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(workers, timeout=30)


@dataclass
class Proxy:
    """A proxy that ends each connection a second after it began, whatever flows; others do so after a minute."""

    target: int
    lifetime: float = 1.0
    cuts: int = 0
    server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def serve(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self.server.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        deadline = time.monotonic() + self.lifetime
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            with selectors.DefaultSelector() as ready:
                ready.register(client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, client)
                while (left := deadline - time.monotonic()) > 0:
                    for key, _ in ready.select(left):
                        source: socket.socket = key.fileobj  # type: ignore[assignment]
                        data = source.recv(65_536)
                        if not data:
                            return
                        key.data.sendall(data)
            self.cuts += 1


@dataclass
class Followed:
    """A run whose batch prints, and the server that shows it."""

    site: Site
    claim: Claim
    web: Web
    browser: Browser

    def open(self, port: int, address: str = "") -> Page:
        """Open the log of the batch, or another address."""
        page = self.browser.new_context(base_url=f"http://127.0.0.1:{port}").new_page()
        page.goto(address or f"/runs/1?tab=log&task={self.claim.task.id}")
        page.evaluate("window.same = true")
        return page

    def print(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.site.log(self.claim, f"line {number} ü\n".encode())
            time.sleep(0.05)

    def check(self, page: Page, lines: int = LINES) -> None:
        """Expect each line once, in order, in a page that was never loaded again."""
        expect(page.get_by_text(f"line {lines - 1} ü", exact=True)).to_be_visible()
        shown = page.locator(".line .t").all_inner_texts()
        assert shown == [f"line {number} ü" for number in range(lines)]
        assert page.evaluate("window.same")


@pytest.fixture
def followed(tmp_path: Path, chromium: Browser) -> Iterator[Followed]:
    site = Site.make(tmp_path)
    site.worker()
    site.submit()
    site.prepare(["a", "b"], batches=1)
    web = Web(tmp_path, free_port())
    web.start()
    found = Followed(site, site.claim(), web, chromium)
    yield found
    for context in chromium.contexts:
        context.close()
    assert web.process is not None
    web.process.terminate()
    web.process.wait(30)
    site.store.close()


def test_the_logs_of_a_run_of_many_batches_are_followed(followed: Followed) -> None:
    site = followed.site
    site.submit()
    site.prepare([f"unit {number}" for number in range(600)], batches=600)
    for _ in range(599):
        site.log(site.claim(), b"exporting\n" * 100)
    last = site.claim()
    page = followed.open(followed.web.port, "/runs/2?tab=log")
    expect(page.locator("#log-follow")).to_be_checked()
    site.log(last, b"the last batch speaks\n")
    expect(page.get_by_text("the last batch speaks")).to_be_visible()
    followed.web.kill()
    expect(page.locator("#live-state")).to_contain_text("reconnecting")
    site.log(last, b"and again\n")
    followed.web.start()
    expect(page.get_by_text("and again")).to_be_visible()
    assert page.get_by_text("the last batch speaks").count() == 1
    expect(page.locator("#live-state")).to_be_hidden()


def test_a_proxy_that_cuts_every_connection(followed: Followed) -> None:
    proxy = Proxy(followed.web.port)
    threading.Thread(target=proxy.serve, daemon=True).start()
    proxy.lifetime = 30.0  # for the page and its parts
    page = followed.open(proxy.port)
    expect(page.locator("#log-follow")).to_be_checked()
    proxy.lifetime = 2.0
    followed.web.kill()  # and the first connection ends, too
    followed.web.start()
    before, lines = proxy.cuts, 0
    while lines < LINES or (proxy.cuts - before < 2 and lines < 1_000):
        followed.print(lines, lines + 1)
        lines += 1
    followed.check(page, lines)
    assert proxy.cuts - before >= 2
    proxy.server.close()


def test_a_server_that_is_killed_and_started_again(followed: Followed) -> None:
    page = followed.open(followed.web.port)
    followed.print(0, 30)
    expect(page.get_by_text("line 29 ü", exact=True)).to_be_visible()
    followed.web.kill()
    expect(page.locator("#live-state")).to_contain_text("reconnecting")
    followed.print(30, 60)  # runs go on without the web
    followed.web.start()
    followed.print(60, LINES)
    followed.check(page)
    expect(page.locator("#live-state")).to_be_hidden()
