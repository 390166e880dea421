"""The page of machines in a browser: accessible, within its width, and its buttons work with and without scripts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from web_browser import Eyes, Served, serve, settled
from web_machines import BUSY, IDLE, STOPPED, make_machines, three_machines

from jobs.machines import WishKind


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    site = make_machines(tmp_path)
    three_machines(site)
    site.worker()
    yield from serve(site)


PATHS = ["/capacity", "/capacity/builders/decisions", f"/capacity/builders/hold?instance={IDLE}", "/runs/1"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_pages_are_accessible_and_fit(
    served: Served, eyes: Eyes, axe: Callable[[Page], list[str]], width: int, scheme: str
) -> None:
    served.site.service.hold_pool("builders", duration="2h", reason="a demonstration", user="rin")
    served.site.service.start_machine("builders", STOPPED, user="rin")
    page = eyes.open("/runs", viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems = []
    for number, path in enumerate(PATHS):
        page.goto(path)
        problems += [f"{path}: {one}" for one in axe(page)]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            problems.append(f"{path} is wider than {width} px")
        if shots := os.environ.get("SHOTS"):
            page.screenshot(path=Path(shots) / f"capacity-{number}-{width}-{scheme}.png", full_page=True)
    assert problems == []


def test_a_machine_is_held_released_and_stopped_with_the_keyboard(served: Served, eyes: Eyes) -> None:
    page = eyes.open("/capacity")
    row = page.locator(f"#machine-{IDLE}")
    row.get_by_role("button", name="Keep awake for 2 h").press("Enter")
    expect(row).to_contain_text("mio keeps it awake, which ends")
    expect(row.get_by_role("button", name="Stop")).to_have_count(0)
    row.get_by_role("button", name="Release").press("Enter")
    row.get_by_role("button", name="Stop: nothing runs, saves USD 0.384/h").press("Enter")
    expect(page.locator("#pools")).to_contain_text(f"mio asked just now to stop {IDLE}")
    assert [one.kind for one in served.site.store.machines.open_wishes("builders")] == [WishKind.STOP]


def test_the_page_follows_without_moving_what_is_read(served: Served, eyes: Eyes) -> None:
    page = eyes.open("/capacity")
    row = page.locator(f"#machine-{BUSY}")
    expect(row).to_contain_text("It does 1 task.")
    before = settled(row)
    (task,) = served.site.service.tasks(1)
    served.site.store.machines.seen(BUSY, busy=["a debug shell of rin"])
    expect(row).to_contain_text("a debug shell of rin")
    now = row.bounding_box()
    assert now is not None
    assert now["y"] == before["y"]
    assert task.host == "host-1"


def test_it_works_without_scripts(served: Served, eyes: Eyes) -> None:
    page = eyes.open("/capacity", java_script_enabled=False)
    page.get_by_role("link", name="Keep the pool awake").click()
    page.get_by_label("For how long").fill("90")
    page.get_by_role("button", name="Keep awake").click()
    expect(page.locator("#duration-error")).to_contain_text("has no unit")
    eyes.said.clear()  # the console tells of the answer 422
    page.get_by_label("For how long").fill("90m")
    page.get_by_label("Why").fill("a demonstration")
    page.get_by_role("button", name="Keep awake").click()
    expect(page.locator("#pools")).to_contain_text("mio keeps the pool awake, which ends")
    expect(page.locator("#pools")).to_contain_text("a demonstration")
