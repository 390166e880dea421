"""Fixtures for browser tests: a served site, and Debian's chromium driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FloatRect,
    Locator,
    Page,
    expect,
    sync_playwright,
)
from web_site import Site
from werkzeug.serving import make_server

from web.hub import Hub

# The slowest poll of a page is 5 s, and a loaded machine may be many times slower than an idle one.
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's chromium; a machine without it fails these tests and says what to install."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path is not None, "no chromium here: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=4 * PATIENCE)
        yield browser
        browser.close()


@dataclass
class Served:
    """A site at an address of its own."""

    site: Site
    url: str
    hub: Hub

    def cut(self) -> None:
        """End all live connections as a restart does; browsers may connect again at once."""
        self.hub.close()
        self.hub.closed = False


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    site = Site.make(tmp_path)
    site.worker()
    yield from serve(site)


def serve(site: Site) -> Iterator[Served]:
    """Serve a site until the test has ended."""
    app = site.app(viewers=8)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # how soon it sees its end
    thread.start()
    yield Served(site, f"http://127.0.0.1:{server.port}", app.extensions["seatrial.hub"])
    app.extensions["seatrial.hub"].close()
    server.shutdown()
    thread.join()
    server.server_close()
    site.store.close()


@dataclass
class Eyes:
    """Opens pages and remembers what the console said."""

    browser: Browser
    url: str
    said: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def context(self, **options: object) -> BrowserContext:
        context = self.browser.new_context(base_url=self.url, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        return context

    def open(self, path: str, **options: object) -> Page:
        page = self.context(**options).new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text}")


@pytest.fixture
def eyes(chromium: Browser, served: Served) -> Iterator[Eyes]:
    eyes = Eyes(chromium, served.url)
    yield eyes
    for context in eyes.contexts:
        context.close()
    assert eyes.said == []


def arrived(page: Page, pattern: str) -> None:
    """Wait until a page's address is so and its scripts have run, which hear what is pressed."""
    expect(page).to_have_url(re.compile(pattern))
    page.wait_for_load_state()


def settled(locator: Locator) -> FloatRect:
    """Give where something stands, when what arrives late, as fonts do, has moved it to its place."""
    locator.page.evaluate("document.fonts.ready.then(() => 0)")
    before = None
    while (box := locator.bounding_box()) != before or box is None:
        before = box
        locator.page.wait_for_timeout(300)
    return box


Axe = Callable[..., list[str]]
PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
WIDTHS = [375, 1440]  # of a telephone and of a screen


@pytest.fixture(scope="session")
def axe() -> Axe:
    """Give a function that names the accessibility violations of a page; `colours`: only those of colour."""
    source = (Path(__file__).parent / "browser" / "vendor" / "axe.min.js").read_text()

    def run(page: Page, *, colours: bool = False) -> list[str]:
        if not page.evaluate("'axe' in globalThis"):
            page.evaluate(source)
        only = ", runOnly: ['color-contrast', 'link-in-text-block']" if colours else ""
        found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations']{only}}})")
        return [
            f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary']}" for v in found["violations"]
        ]

    return run


def faults(
    eyes: Eyes, axe: Axe, paths: Sequence[str], width: int, *, before: Callable[[Page], None] | None = None
) -> list[str]:
    """Tell what of pages is not accessible, in light and in dark, or wider than the window; in SHOTS they are kept.

    A theme is colours alone, so in dark those alone are looked at again. `before`: what to do on each page first.
    """
    page = eyes.open("/runs", viewport={"width": width, "height": 900}, color_scheme="light")
    found = []
    for number, path in enumerate(paths):
        page.emulate_media(color_scheme="light")
        page.goto(path)
        page.wait_for_timeout(150)
        if before is not None:
            before(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            if "report" not in path:  # which lets no script run, not even these
                page.evaluate(PAINTED)
                found += [f"{path} in {scheme}: {violation}" for violation in axe(page, colours=scheme == "dark")]
            if shots := os.environ.get("SHOTS"):
                page.screenshot(path=Path(shots) / f"{number}-{width}-{scheme}.png", full_page=True)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if over > 0:
            found.append(f"{path}: {over} px wider than the window")
    return found
