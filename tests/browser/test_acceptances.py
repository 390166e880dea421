"""Groups of differences in a browser: accepted with a keyboard, without scripts, and on a telephone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from web_browser import WIDTHS, Axe, Eyes, Served, faults
from web_compare import compared, every_class, with_rules

from jobs.accepting import Asked

REASON = "The law changed on 1 October; accounting has seen all of it."


@pytest.fixture
def whole(served: Served) -> Served:
    """Run 1 has units of every class, run 2 too, and carries what was accepted in run 1 and withdrawn since."""
    with_rules(served.site)
    service = served.site.service
    compared(served.site, *every_class())
    rise = service.groups(1)[0].group.key
    missing = next(one.group.key for one in service.groups(1) if one.group.cause.what == "missing")
    service.accept(1, missing, Asked("No VAT report any more", "Tenant 6 moved."), user="rin")
    compared(served.site, *every_class())
    service.accept(2, rise, Asked("New rates", REASON, "30d"), user="mio")
    service.withdraw(1, missing, user="mio")
    return served


PATHS = ["/runs/1?tab=differences", "/runs/2?tab=differences", "/runs/2", "/projects/accounts/acceptances", "/projects"]


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_accessible_and_fit(whole: Served, eyes: Eyes, axe: Axe, width: int) -> None:
    key = whole.site.service.groups(1)[1].group.key

    def open_form(page: Page) -> None:
        for form in page.locator(".group details").all()[:1]:
            form.locator("summary").click()

    assert faults(eyes, axe, [*PATHS, f"/runs/1/groups/{key}"], width, before=open_form) == []


def test_a_group_is_accepted_and_withdrawn_with_the_keyboard(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1?tab=differences")
    group = page.locator(".group").filter(has=page.locator("details")).first
    title = group.locator(".group-title").inner_text()
    group.locator("summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("As expected")
    page.keyboard.press("Tab")
    page.keyboard.type(REASON)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    accepted = page.locator(".group.is-accepted").filter(has_text=title)
    expect(accepted.first).to_contain_text("As expected")
    expect(accepted.first).to_contain_text("by mio in run 1")
    expect(page.locator("#sum-line")).to_contain_text("accepted in 1 group")
    accepted.first.get_by_role("button", name="Withdraw").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".group.is-accepted")).to_have_count(0)


def test_it_works_without_scripts(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1?tab=differences", java_script_enabled=False)
    group = page.locator(".group").filter(has=page.locator("details")).first
    group.locator("summary").click()
    group.get_by_label("Name").fill("As expected")
    group.get_by_label("Why is the difference right?").fill(REASON)
    group.get_by_label("Until").fill("1999-01-01")
    group.get_by_role("button", name="Accept this group").click()
    expect(page.get_by_text("is in the past")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("As expected")
    page.get_by_label("Until").fill("30d")
    page.get_by_role("button", name="Accept this group").click()
    expect(page.locator(".group.is-accepted")).to_contain_text(REASON)
    page.locator(".group.is-accepted .group-title").click()
    expect(page.locator("#diff-units .accepted-mark").first).to_be_visible()
    eyes.said.clear()  # the refusal's status
