"""Compare runs in a browser: they appear while the run goes on, nothing jumps, and a keyboard is enough."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from web_browser import WIDTHS, Axe, Eyes, Served, arrived, faults, settled
from web_compare import begin, compare_now, compared, every_class, ledger, table, with_rules

from runner.model import UnitResult, UnitState


@pytest.fixture
def whole(served: Served) -> Served:
    """Run 1 has units of every class, run 2 agrees."""
    with_rules(served.site)
    compared(served.site, *every_class())
    twin = {"a/pl": ledger(), "b/pl": ledger()}
    compared(served.site, twin, twin)
    return served


PATHS = [
    "/runs",
    "/new?project=accounts&ref=feature/rounding&against=other&baseline=main",
    "/runs/1",
    "/runs/1?tab=differences",
    "/runs/1?tab=differences&class=all&sort=delta&tenant=tenant_008",
    "/runs/2?tab=differences",
    "/runs/1/diffs/tenant_017/pl",
    "/runs/1/diffs/tenant_008/bs",
    "/runs/1/diffs/tenant_009/bs",
    "/runs/1/diffs/tenant_001/cash",
    "/runs/1/diffs/tenant_003/tax",
    "/runs/1/diffs/tenant_006/vat",
    "/runs/1/report.html",
]


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_accessible_and_fit(whole: Served, eyes: Eyes, axe: Axe, width: int) -> None:
    assert faults(eyes, axe, PATHS, width) == []


def test_differences_appear_and_nothing_jumps(served: Served, eyes: Eyes) -> None:
    site = served.site
    with_rules(site)
    units = [f"t{n}/pl" for n in range(6)]
    begin(site, units, units)
    claims = [site.claim(), site.claim()]

    def finish(at: int, *, differ: bool) -> None:
        for claim in claims:
            amount = {4001: "9.5"} if differ and claim.task.leg == "candidate" else {}
            result = UnitResult(units[at], UnitState.DONE, site.output(ledger(amount), "pl.csv"), "", 1.0)
            site.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)
        compare_now(site)

    finish(4, differ=True)
    page = eyes.open("/runs/1?tab=differences")
    row = page.locator("#diff-units tbody tr")
    expect(row).to_have_count(1)
    expect(page.locator("#sum-line")).to_contain_text("1 of 6 units compared, 1 differs so far")
    before = settled(row.first)
    finish(1, differ=True)
    pill = page.get_by_role("link", name="1 new")
    expect(pill).to_be_visible()
    expect(page.locator("#chip-different b")).to_have_text("2")
    expect(page.locator("#count-differences")).to_have_text("2")
    expect(row).to_have_count(1)
    assert row.first.bounding_box() == before
    pill.click()
    expect(row).to_have_count(2)
    for at in (0, 2, 3, 5):
        finish(at, differ=False)
    for claim in claims:
        site.end(claim)
    compare_now(site)
    expect(page.get_by_role("heading", level=1)).to_contain_text("2 of 6 units: 2 different")


def test_causes_appear_and_nothing_jumps(served: Served, eyes: Eyes, axe: Axe) -> None:
    site = served.site
    with_rules(site)
    units = ["t0/pl", "t1/cash", "t2/pl", "t3/tax", "t4/pl", "t5/vat"]
    begin(site, units, units)
    claims = [site.claim(), site.claim()]

    def finish(unit: str, amount_now: str = "9.5") -> None:
        for claim in claims:
            amount = {4001: amount_now} if claim.task.leg == "candidate" else {}
            result = UnitResult(unit, UnitState.DONE, site.output(ledger(amount), "pl.csv"), "", 1.0)
            site.store.ledger.mark(claim.task.id, claim.task.attempt, [result], None)
        compare_now(site)

    page = eyes.open("/runs/1?tab=differences")
    title, causes = page.locator("#groups-title"), page.locator("#groups .group")
    expect(title).to_have_text("No cause so far")
    below = settled(page.locator("#list-title"))
    finish("t1/cash")
    expect(title).to_have_text("1 cause explains what differs so far")
    finish("t0/pl")
    finish("t2/pl")
    expect(causes).to_have_count(2)
    expect(causes.nth(1)).to_contain_text("2 units")
    assert "cash" in causes.first.inner_text(), "what was shown first stays there, though others have more units"
    assert page.locator("#list-title").bounding_box() == below
    causes.first.locator("summary").click()
    page.get_by_label("Name").first.fill("A name that I am typing")
    finish("t3/tax", "n/a")
    expect(page.locator("#chip-different b")).to_have_text("4")
    page.wait_for_timeout(1500)
    expect(page.get_by_label("Name").first).to_have_value("A name that I am typing")
    expect(causes).to_have_count(2)
    causes.first.locator("summary").click()
    page.get_by_role("heading", level=1).click()
    expect(causes).to_have_count(3)
    assert page.locator("#list-title").bounding_box() == below
    assert axe(page) == []


def test_a_telephone_shows_long_names_and_numbers_whole(served: Served, eyes: Eyes) -> None:
    with_rules(served.site)
    head = "account,month,net_amount_in_the_currency_of_the_tenant_before_rounding"
    a, b = (table(("a customer of a long name", "2026-11", n), head=head) for n in (5, "123456789.25"))
    files = [{"a.csv": a, "old.csv": b"x"}, {"a.csv": b, "new.csv": b"x"}]
    compared(served.site, {"a/pl": a, "b/pl": files[0]}, {"a/pl": b, "b/pl": files[1]})
    page = eyes.open("/runs", viewport={"width": 375, "height": 900})
    cut = """() => [...document.querySelectorAll('.table-frame, .scroll, table, td, p')]
        .filter((one) => !one.closest('.map-frame, .durations, .sr-only') && one.scrollWidth > one.clientWidth + 1)
        .map((one) => one.outerHTML.slice(0, 90))"""
    for path in ("/runs/1/diffs/a/pl", "/runs/1/diffs/b/pl", "/runs/1?tab=differences", "/runs/1/report.html"):
        page.goto(path)
        if "report" not in path:  # which lets no script run
            assert page.evaluate(cut) == [], path
    for cell in page.locator(".cells td").all():
        box = cell.bounding_box()
        assert box is not None
        assert box["width"] > 80, cell.inner_text()
    [number] = {box["height"] for box in (one.bounding_box() for one in page.locator(".cells td.right").all()) if box}
    assert number < 30, "a number is on one line"


def test_the_keyboard_goes_through_what_differs(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1")
    page.keyboard.press("g")
    page.keyboard.press("d")
    arrived(page, "tab=differences")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    arrived(page, "/diffs/tenant_001/pl$")
    page.keyboard.press("j")
    arrived(page, "/diffs/tenant_002/pl$")
    page.keyboard.press("k")
    arrived(page, "/diffs/tenant_001/pl$")
    page.get_by_label("Kind of change").select_option("value")
    expect(page).to_have_url(re.compile("change=value"))


def test_a_filter_is_in_the_address(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1?tab=differences")
    page.locator("#diff-text").fill("tax")
    expect(page.locator("#diff-units tbody tr")).to_have_count(3)
    expect(page).to_have_url(re.compile("text=tax"))
    page.locator("#chip-candidate_failed").click()
    expect(page.locator("#diff-units tbody tr")).to_have_count(1)
    expect(page.locator("#durations svg.scatter")).to_be_visible()


def test_a_chip_keeps_what_was_typed_and_the_back_button_what_was_shown(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1?tab=differences")
    rows, typed, chip = (page.locator(name) for name in ("#diff-units tbody tr", "#diff-text", "#chip-different"))
    expect(rows).to_have_count(18)
    page.evaluate("globalThis.stayed = true")
    typed.fill("tenant_00")
    expect(rows).to_have_count(12)
    chip.click()
    expect(rows).to_have_count(8)
    expect(page).to_have_url(re.compile(r"class=different&text=tenant_00$"))
    expect(typed).to_have_value("tenant_00")
    expect(chip).to_have_attribute("aria-current", "true")
    assert page.evaluate("globalThis.stayed")  # the page was not loaded again
    for back, count, text in (
        (page.go_back, 12, "tenant_00"),
        (page.go_back, 18, ""),
        (page.go_forward, 12, "tenant_00"),
    ):
        back()
        expect(rows).to_have_count(count)
        expect(typed).to_have_value(text)
        expect(page.locator("#chip-differing")).to_have_attribute("aria-current", "true")
    typed.fill("tenant_003")  # the restored form works on
    expect(rows).to_have_count(1)
    page.locator("#diff-units .rowlink").click()
    expect(page).to_have_url(re.compile("/diffs/tenant_003/tax$"))
    page.go_back()
    expect(rows).to_have_count(1)
    expect(typed).to_have_value("tenant_003")
    typed.fill("tenant_00")
    expect(rows).to_have_count(12)
    page.locator("#sum-report ~ table").get_by_role("link", name="tax").click()
    expect(rows).to_have_count(3)
    expect(typed).to_have_value("tenant_00")


def test_a_filter_holds_while_the_run_goes_on(served: Served, eyes: Eyes) -> None:
    site = served.site
    with_rules(site)
    units = [f"t{n}/{name}" for n in range(3) for name in ("pl", "bs")]
    begin(site, units, units)
    claims = [site.claim(), site.claim()]

    def finish(*names: str) -> None:
        for claim in claims:
            amount = {4001: "9.5"} if claim.task.leg == "candidate" else {}
            results = [
                UnitResult(name, UnitState.DONE, site.output(ledger(amount), "pl.csv"), "", 1.0) for name in names
            ]
            site.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
        compare_now(site)

    finish("t0/pl", "t0/bs")
    page = eyes.open("/runs/1?tab=differences")
    rows = page.locator("#diff-units tbody tr")
    expect(rows).to_have_count(2)
    page.locator("#diff-text").fill("/pl")
    expect(rows).to_have_count(1)
    finish("t1/pl", "t1/bs", "t2/bs")
    pill = page.get_by_role("link", name="1 new")
    expect(pill).to_be_visible()
    expect(page.locator("#chip-differing b")).to_have_text("5")
    pill.click()
    expect(rows).to_have_count(2)
    expect(page.locator("#diff-text")).to_have_value("/pl")


def test_the_form_says_what_is_compared(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/new?project=accounts&ref=feature/rounding")
    expect(page.locator("#preview")).to_contain_text("2 legs")
    expect(page.locator("#preview")).to_contain_text("Baseline: v2.41.0")
    page.get_by_label("another branch, tag or commit").check()
    field = page.get_by_label("Baseline: branch, tag or commit")
    field.fill("main")
    expect(page.locator("#preview")).to_contain_text("Baseline: main")
    page.get_by_label("nothing").check()
    expect(field).to_be_hidden()
    expect(page.locator("#preview")).not_to_contain_text("Baseline:")


def test_without_scripts_it_can_all_be_read(whole: Served, eyes: Eyes) -> None:
    page = eyes.open("/runs/1?tab=differences", java_script_enabled=False)
    page.locator("#diff-text").fill("tenant_008")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#diff-units tbody tr")).to_have_count(2)
    page.locator("#diff-units").get_by_role("link", name="tenant_008/bs").click()
    expect(page.locator(".cells-diff tbody tr")).to_have_count(4)
    page.get_by_role("link", name="Next differing").click()
    expect(page).to_have_url(re.compile("/diffs/tenant_008/pl$"))
