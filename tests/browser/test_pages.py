"""Every page: accessible, quiet in the console, within its width, in light and dark, usable by keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from web_browser import WIDTHS, Axe, Eyes, Served, arrived, faults, settled

from runner.model import Reason

UNITS = [f"tenant_{n:03}/{report}" for n in range(1, 9) for report in ("pl", "bs", "cash")]


@pytest.fixture
def many(served: Served) -> Served:
    """Runs in many states."""
    site = served.site
    site.passed(UNITS, note="Rounds half to even; watch pl")
    site.failed()
    cut = site.submit()
    site.prepare(UNITS, batches=1)
    claim = site.claim()
    site.mark(claim, claim.units[:5])
    site.store.tasks.interrupt(claim.task.id, claim.task.attempt, Reason("database_lost", "The connection dropped."))
    site.service.cancel(cut.id, user="mio")
    site.submit()
    site.prepare(UNITS, batches=4)
    claim = site.claim()
    site.step(claim, "run", None, "bin/export", state="running")
    site.mark(claim, claim.units[:2])
    site.log(claim, b"\x1b[31mred\x1b[0m \x1b[38;5;208morange\x1b[0m\n" * 50)
    site.submit("main")
    return served


PATHS = [
    "/runs",
    "/runs?text=nothing",
    "/new?project=accounts&ref=feature/rounding",
    "/new?project=accounts&ref=broken",
    "/runs/1",
    "/runs/2",
    "/runs/3",
    "/runs/4",
    "/runs/5",
    "/runs/4?tab=units",
    "/runs/4?tab=log",
    "/runs/2?tab=log&task=4",
    "/runs/3?tab=attempts",
    "/runs/1?tab=files",
    "/runs/1/units/candidate/tenant_001/pl",
    "/runs/2/units/candidate/tenant_001/bs",
    "/projects",
    "/capacity",
]


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_accessible_and_fit(many: Served, eyes: Eyes, axe: Axe, width: int) -> None:
    assert faults(eyes, axe, PATHS, width) == []


def test_the_keyboard_is_enough(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs")
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Escape")
    page.locator("#text").blur()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    arrived(page, "/runs/4$")
    page.keyboard.press("g")
    page.keyboard.press("l")
    arrived(page, "tab=log")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    arrived(page, "/new$")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches(':focus-visible')")


def test_the_theme_is_remembered(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs", color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_the_list_filters_while_typing(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs")
    expect(page.locator("#rows tr")).to_have_count(5)
    page.locator("#text").fill("half to even; watch")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("text=half"))
    page.go_back()
    expect(page.locator("#rows tr")).to_have_count(5)
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#rows tr")).to_have_count(1)


def test_new_runs_are_a_pill_and_push_nothing(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs")
    first = page.locator("#rows tr").first
    expect(first).to_have_id("run-5")
    before = settled(first)
    many.site.submit("main")
    many.site.submit("main")
    pill = page.get_by_role("link", name="2 new")
    expect(pill).to_be_visible()
    expect(first).to_have_id("run-5")
    assert first.bounding_box() == before
    pill.click()
    expect(page.locator("#rows tr").first).to_have_id("run-7")


def test_a_row_changes_where_it_stands(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs")
    row = page.locator("#run-5")
    expect(row).to_contain_text("Queued")
    many.site.service.cancel(5, user="mio")
    expect(row).to_contain_text("Cancelled")


def test_a_run_is_submitted_with_completion_and_preview(served: Served, eyes: Eyes) -> None:
    page = eyes.open("/new")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#ref").press_sequentially("feature/", delay=20)
    expect(page.locator("#refs option")).to_have_count(1)
    expect(page.locator("#refs option")).to_have_attribute("value", "feature/rounding")
    page.locator("#ref").press_sequentially("rounding", delay=20)
    expect(page.locator("#preview")).to_contain_text("Round half to even in the ledger")
    page.get_by_label("What could this change affect?").fill("Every amount <b>with</b> a tie")
    assert any("/new/preview?" in url for url in asked)
    assert not [url for url in asked if "csrf_token" in url], "addresses are kept in logs"
    page.get_by_role("button", name="Start the run").dblclick()
    expect(page).to_have_url(re.compile("/runs/1$"))
    expect(page.locator("#details-title")).to_be_visible()
    expect(page.get_by_text("Every amount <b>with</b> a tie")).to_be_visible()
    assert len(served.site.service.runs().runs) == 1
    page.goto("/new")
    expect(page.locator("#ref")).to_have_value("feature/rounding")


def test_a_refused_submission_says_why_beside_the_field(served: Served, eyes: Eyes) -> None:
    page = eyes.open("/new")
    field = page.locator("#ref")
    field.fill("gone")
    page.get_by_role("button", name="Start the run").click()
    expect(page.locator("#ref-error")).to_contain_text("gone")
    expect(field).to_have_value("gone")
    expect(field).to_have_attribute("aria-invalid", "true")
    eyes.said.clear()  # the browser notes the 404 that the page is


def test_without_scripts_everything_but_live_works(many: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs", java_script_enabled=False)
    page.locator("#text").fill("watch")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("link", name=re.compile("accounts")).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Passed")
    page.goto("/runs/2?tab=log")
    expect(page.locator("#log-view")).to_contain_text("KeyError: amount")
    page.goto("/new")
    page.locator("#ref").fill("main")
    page.get_by_role("button", name="Start the run").click()
    expect(page).to_have_url(re.compile("/runs/6$"))
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancelled")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Queued")
