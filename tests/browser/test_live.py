"""A run's page while the run goes on: it changes where it stands, survives a cut stream, and says what it does."""

from __future__ import annotations

import re

import pytest
from hands import Hands
from playwright.sync_api import Page, expect
from web_browser import Eyes, Served

from jobs.adapters.sql_tasks import Claim
from runner.model import Reason

UNITS = [f"tenant_{n:03}/pl" for n in range(40)]


@pytest.fixture
def going(served: Served) -> tuple[Served, Claim]:
    """A run whose only batch runs."""
    served.site.submit()
    served.site.prepare(UNITS, batches=1)
    claim = served.site.claim()
    served.site.step(claim, "run", None, "bin/export", state="running")
    return served, claim


def shown(page: Page) -> str:
    """Give the text of the lines that the log shows."""
    return "\n".join(page.locator(".line .t").all_inner_texts())


def test_progress_and_end_arrive_without_reload(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    page = eyes.open("/runs/1")
    page.evaluate(
        """() => { window.moved = 0; window.same = true;
        new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput) window.moved += e.value; })
          .observe({ type: "layout-shift", buffered: false }); }"""
    )
    button = page.get_by_role("button", name="Cancel run")
    button.focus()
    served.site.mark(claim, UNITS[:10])
    expect(page.locator(".overall")).to_contain_text("10 of 40 units")
    expect(page).to_have_title(re.compile("Running 25 %"))
    served.site.mark(claim, UNITS[10:20])
    expect(page.locator(".overall")).to_contain_text("20 of 40 units")
    expect(button).to_be_focused()
    assert page.evaluate("window.moved") < 0.01
    served.site.mark(claim, UNITS[20:])
    served.site.end(claim)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Passed")
    expect(page).to_have_title(re.compile("^Passed"))
    expect(page.locator("#favicon")).to_have_attribute("href", re.compile(r"passed\.svg"))
    expect(page.locator("#say")).to_contain_text("Passed")
    assert page.evaluate("window.same")


def test_an_interruption_is_said_in_words(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    page = eyes.open("/runs/1")
    served.site.mark(claim, UNITS[:10])
    served.site.store.tasks.interrupt(
        claim.task.id, claim.task.attempt, Reason("database_lost", "The connection dropped.")
    )
    expect(page.locator(".why")).to_have_text("The connection dropped.")
    expect(page.locator("#next-try")).to_contain_text("Next try")
    expect(page.locator("#next-try")).to_contain_text("10 of 40 units are safe")
    expect(page.get_by_role("button", name="Resume now — 30 units left")).to_be_visible()


def test_the_next_try_is_counted_down(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    outage = Reason("database_unavailable", "The database does not answer.")
    for _ in range(5):  # each outage in a row waits longer
        served.site.store.tasks.interrupt(claim.task.id, claim.task.attempt, outage)
        Hands(served.site.store).make_due()
        claim = served.site.claim()
    served.site.store.tasks.interrupt(claim.task.id, claim.task.attempt, outage)
    page = eyes.open("/runs/1")
    time = page.locator("#next-try time")
    expect(time).to_have_text(re.compile(r"in \d+ s"))
    shown = {time.inner_text()}
    for _ in range(12):
        page.wait_for_timeout(300)
        shown.add(time.inner_text())
    assert len(shown) >= 3


def test_the_tabs_count_on_while_the_run_goes_on(served: Served, eyes: Eyes) -> None:
    served.site.submit()
    page = eyes.open("/runs/1?tab=attempts")
    units, attempts = page.locator("#count-units"), page.locator("#count-attempts")
    expect(units).to_be_empty()
    expect(page.get_by_text("No attempt yet")).to_be_visible()
    served.site.prepare(UNITS, batches=1)
    expect(units).to_have_text("40")
    expect(attempts).to_have_text("1")
    served.site.claim()
    expect(attempts).to_have_text("2")
    expect(page.locator("#attempts tbody tr")).to_have_count(2)
    expect(page.locator("#tab-attempts")).to_have_attribute("aria-current", "page")


def test_cancel_asks_first(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, _ = going
    page = eyes.open("/runs/1")
    with page.expect_event("dialog"):
        page.get_by_role("button", name="Cancel run").click()
    assert eyes.said == ["dialog: Cancel run 1? Its 0 finished units stay, and it can be resumed."]
    eyes.said.clear()
    assert not served.site.service.run(1).cancel_requested  # the fixture says no


def test_units_change_while_they_are_looked_at(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    page = eyes.open("/runs/1?tab=units")
    served.site.mark(claim, UNITS[:1], failed="KeyError: amount")
    expect(page.locator("tbody tr").first).to_contain_text("KeyError: amount")


def test_the_log_follows_until_it_is_scrolled(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    served.site.log(claim, b"".join(b"old %d\n" % n for n in range(300)))
    page = eyes.open("/runs/1?tab=log")
    view = page.locator("#log-view")
    expect(page.locator("#log-follow")).to_be_checked()
    served.site.log(claim, b"the newest line\n")
    expect(page.get_by_text("the newest line")).to_be_in_viewport()
    view.hover()
    page.mouse.wheel(0, -600)
    expect(page.locator("#log-follow")).not_to_be_checked()
    expect(page.locator("#log-note")).to_contain_text("because you scrolled up")
    at = -1
    while (now := view.evaluate("(el) => el.scrollTop")) != at:  # the wheel's way takes its time
        at = now
        page.wait_for_timeout(200)
    served.site.log(claim, b"".join(b"unseen %d\n" % n for n in range(50)))
    expect(page.get_by_text("unseen 49")).to_be_attached()
    assert view.evaluate("(el) => el.scrollTop") == at  # what is being read stays
    page.get_by_role("button", name="End").click()
    expect(page.get_by_text("unseen 49")).to_be_in_viewport()
    expect(page.locator("#log-follow")).to_be_checked()


def test_a_cut_stream_goes_on_at_the_exact_byte(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    page = eyes.open(f"/runs/1?tab=log&task={claim.task.id}")
    text = "first half of é line"
    data = text.encode()
    served.site.log(claim, data[:16])  # in the middle of é
    expect(page.locator("#log-view")).to_contain_text("first half of")
    page.context.set_offline(True)
    page.evaluate("() => {}")
    served.site.log(claim, data[16:] + b"\nsecond\n")
    page.wait_for_timeout(500)
    page.context.set_offline(False)
    served.site.log(claim, b"third\n")
    expect(page.get_by_text("third")).to_be_visible()
    assert shown(page) == f"{text}\nsecond\nthird"
    again = eyes.open(f"/runs/1?tab=log&task={claim.task.id}")  # the browser was closed and opened
    expect(again.get_by_text("third")).to_be_visible()
    served.site.log(claim, b"fourth\n")
    expect(again.get_by_text("fourth")).to_be_visible()
    assert shown(again) == f"{text}\nsecond\nthird\nfourth"
    eyes.said = [said for said in eyes.said if "net::ERR_" not in said]


def test_a_restarted_stream_repeats_nothing(going: tuple[Served, Claim], served: Served, eyes: Eyes) -> None:
    """Cut the connection on the server's side while lines flow, as a proxy or a restart does."""
    _, claim = going
    page = eyes.open(f"/runs/1?tab=log&task={claim.task.id}")
    expected = []
    for n in range(60):
        line = f"line {n}"
        served.site.log(claim, f"{line}\n".encode())
        expected.append(line)
        if n % 20 == 10:
            served.cut()
        page.wait_for_timeout(20)
    expect(page.get_by_text("line 59", exact=True)).to_be_visible()
    assert shown(page).split("\n") == expected
    eyes.said = [said for said in eyes.said if "net::ERR_" not in said]


def test_a_new_batch_appears_in_the_merged_log(served: Served, eyes: Eyes) -> None:
    served.site.submit()
    page = eyes.open("/runs/1?tab=log")
    served.site.prepare(["a", "b"], batches=2)
    expect(page.get_by_role("link", name="batch 2")).to_be_visible()
    expect(page.locator("#log-view")).to_contain_text("Round: migrated")
    first = served.site.claim()
    served.site.log(first, b"first batch speaks\n")
    expect(page.get_by_text("first batch speaks")).to_be_visible()
    second = served.site.claim()
    served.site.log(second, b"second batch speaks\n")
    expect(page.get_by_text("second batch speaks")).to_be_visible()
    served.site.log(first, b"first again\n")
    expect(page.get_by_text("first again")).to_be_attached()
    assert shown(page).split("\n")[-3:] == ["first batch speaks", "second batch speaks", "first again"]
    assert page.locator(".log-head").all_inner_texts() == ["prepare", "batch 1", "batch 2"]
    said = page.locator(".block").evaluate_all(
        "(all) => all.map((el) => getComputedStyle(el.firstChild, '::before').content)"
    )
    assert said == ['"prepare"', '"batch 1"', '"batch 2"', '"batch 1"']
    numbers = page.locator(".block").last.locator(".n").all_inner_texts()
    assert numbers == ["2"]  # of its own log


def test_a_line_that_was_begun_is_ended_where_it_began(served: Served, eyes: Eyes) -> None:
    served.site.submit()
    served.site.prepare(["a", "b"], batches=2)
    first, second = served.site.claim(), served.site.claim()
    page = eyes.open("/runs/1?tab=log")
    served.site.log(first, b"one\ntwo begins")
    expect(page.locator("#log-view")).to_contain_text("two begins")
    served.site.log(second, b"other\n")
    expect(page.locator("#log-view")).to_contain_text("other")
    served.site.log(first, b", two ends\nthree\n")
    expect(page.locator("#log-view")).to_contain_text("three")
    assert shown(page).split("\n")[-4:] == ["one", "two begins, two ends", "other", "three"]


def test_a_batch_that_speaks_again_is_shown_with_what_it_said_before(served: Served, eyes: Eyes) -> None:
    served.site.submit()
    served.site.prepare(["a", "b"], batches=2)
    first, second = served.site.claim(), served.site.claim()
    served.site.log(first, b"".join(b"old %d\n" % n for n in range(50)))
    served.site.log(second, b"the last one\n")
    page = eyes.open("/runs/1?tab=log")
    expect(page.get_by_text("the last one")).to_be_visible()
    served.site.log(first, b"new\n")
    expect(page.get_by_text("new", exact=True)).to_be_visible()
    lines = shown(page).split("\n")
    assert lines[-21:] == ["the last one", *(f"old {n}" for n in range(31, 50)), "new"]
    served.site.log(second, b"and another\n")
    expect(page.get_by_text("and another")).to_be_visible()
    assert shown(page).split("\n")[-2:] == ["new", "and another"]


def test_too_many_viewers_are_told_and_still_served(going: tuple[Served, Claim], eyes: Eyes) -> None:
    served, claim = going
    hub = served.hub
    hub.limit = 0
    page = eyes.open("/runs/1")
    expect(page.locator("#live-state")).to_contain_text("asks every 10 s")
    served.site.mark(claim, UNITS[:20])
    expect(page.locator(".overall")).to_contain_text("20 of 40 units", timeout=45_000)
    eyes.said = [said for said in eyes.said if "503" not in said and "EventSource" not in said]
