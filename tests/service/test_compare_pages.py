"""The pages of compare runs, on real comparisons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from web_compare import begin, compare_now, compared, every_class, finish, ledger, table, with_rules
from web_site import Site


@pytest.fixture
def client(site: Site) -> FlaskClient:
    site.worker()
    with_rules(site)
    return site.app().test_client()


@pytest.fixture
def whole(site: Site, client: FlaskClient) -> FlaskClient:
    """Run 1 has units of every class."""
    compared(site, *every_class())
    return client


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, path
    return answer.get_data(as_text=True)


def units_of(text: str) -> list[str]:
    return re.findall(r'class="rowlink" href="[^"]+">([^<]+)</a>', text)


def test_the_head_says_the_verdict_in_words(whole: FlaskClient) -> None:
    text = page(whole, "/runs/1")
    words = "18 of 109 units: 14 different, 1 failed on the candidate, 1 failed on the baseline, 1 failed on both legs"
    assert words in text
    assert "against <b" in text
    assert 'id="count-differences">18<' in text
    assert "What differs" in text
    assert "All 18 differences" in text
    assert "on 2 legs" in text


def test_a_run_that_agrees_shows_its_proof(site: Site, client: FlaskClient) -> None:
    compared(site, {"a/pl": ledger(), "a/cash": ledger()}, {"a/pl": ledger(), "a/cash": ledger({4001: "5001.252"})})
    text = page(client, "/runs/1")
    assert "2 units have the same figures: 1 within the rules" not in text
    assert "2 units have the same figures: 1 the same bytes, 1 within the rules" in text
    text = page(client, "/runs/1?tab=differences")
    assert "Nothing differs. 1 unit: the same bytes, so no file was read. 1 unit: read, and within the rules." in text
    assert units_of(text) == ["a/pl", "a/cash"]
    assert "numbers within the tolerance" in text


def test_the_list_of_runs_counts_what_differs(whole: FlaskClient) -> None:
    assert "18 differ</a>" in page(whole, "/runs").replace("\n", "")
    assert "against v2.41.0" in page(whole, "/runs")
    assert "18 differ" in page(whole, "/runs?state=different")
    assert "18 differ" not in page(whole, "/runs?state=passed")


def test_the_tab_sums_up_first(whole: FlaskClient) -> None:
    text = page(whole, "/runs/1?tab=differences")
    order = [
        f'id="{name}"'
        for name in (
            "chip-differing",
            "sum-report",
            "sum-tenant",
            "sum-column",
            "sum-largest",
            "map-title",
            "list-title",
        )
    ]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert re.search(r'id="chip-missing".*?<b class="figures">1</b>', text, re.DOTALL)
    assert "only the baseline lists it" in text
    assert len(units_of(text)) == 18
    # A cell of the map has a shape, a word and an address.
    cell = '<a class="k-candidate_failed" href="/runs/1/diffs/tenant_003/tax"'
    assert cell in text
    assert "tenant_003/tax: failed on the candidate" in text


@pytest.mark.parametrize(
    ("query", "units"),
    [
        ("class=missing", ["tenant_006/vat"]),
        ("class=new", ["tenant_007/notes"]),
        ("class=both_failed", ["tenant_005/tax"]),
        ("class=different&tenant=tenant_008", ["tenant_008/bs", "tenant_008/pl"]),
        ("report=tax", ["tenant_003/tax", "tenant_004/tax", "tenant_005/tax"]),
        ("text=TENANT_004", ["tenant_004/pl", "tenant_004/tax"]),
        ("sort=delta&text=tenant_00&class=different", ["tenant_009/bs", "tenant_008/pl", "tenant_007/pl"]),
        ("text=100%25", []),
    ],
)
def test_the_list_is_narrowed_by_its_address(whole: FlaskClient, query: str, units: list[str]) -> None:
    assert units_of(page(whole, f"/runs/1?tab=differences&{query}"))[:3] == units
    asked = query if "class" in query else f"{query}&class=differing"
    found = whole.get(f"/api/v1/runs/1/diffs?{asked}").json
    assert [one["unit"] for one in found["units"]][:3] == units


def test_the_list_is_paged(whole: FlaskClient) -> None:
    address, seen = "/runs/1?tab=differences&class=all", []
    while True:
        text = page(whole, address)
        seen += units_of(text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        if following is None:
            break
        address = following[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == 109
    by_delta, address = [], "/api/v1/runs/1/diffs?sort=delta&limit=4"
    while address:
        found = whole.get(address).json
        by_delta += [one["largest"] for one in found["units"]]
        address = found["next"]
    assert by_delta == sorted(by_delta, reverse=True)
    assert len(by_delta) == len(whole.get("/api/v1/runs/1/diffs?sort=delta&limit=1000").json["units"])


def test_it_appears_while_the_run_goes_on(site: Site, client: FlaskClient) -> None:
    begin(site, ["a/pl", "b/pl"], ["a/pl", "b/pl"])
    text = page(client, "/runs/1?tab=differences")
    assert "Nothing is compared yet" in text
    poll = re.search(r'id="diff-live" hx-get="([^"]+)"', text)
    assert poll is not None
    address = poll[1].replace("&amp;", "&")
    assert "new</a>" not in page(client, address)
    finish(
        site,
        {leg: {"a/pl": ledger({4001: str(n)}), "b/pl": ledger()} for n, leg in enumerate(("baseline", "candidate"))},
    )
    assert "Nothing differs so far" not in page(client, address)
    compare_now(site)
    assert "1 new</a>" in page(client, address)
    assert 'hx-get="/runs/1/differences' not in page(client, "/runs/1?tab=differences").split("<section")[0]


def test_a_unit_is_shown_side_by_side(whole: FlaskClient) -> None:
    text = page(whole, "/runs/1/diffs/tenant_017/pl")
    assert "22 rows changed; 18 rows the same. By the rule *." in text
    assert "18 rows are the same and not shown" in text
    assert "52<del>41.25</del>" in text
    assert "52<ins>67.46</ins>" in text
    assert "+26.21" in text
    assert text.index("+26.21") < text.index("+26.07")
    assert 'data-jump="next"' in text
    assert 'role="img" aria-label="How many deltas have which size' in text
    assert "/api/v1/runs/1/units/tenant_017/pl/output?leg=baseline" in text
    assert page(whole, "/runs/1/diffs/tenant_017/pl?column=month").count("<del>") == 0
    assert "No stored difference matches" in page(whole, "/runs/1/diffs/tenant_017/pl?change=added")
    page(whole, "/runs/1/diffs/nope", 404)


def test_the_largest_number_beside_a_small_one_has_its_bar(site: Site, client: FlaskClient) -> None:
    largest = "1.7976931348623157e308"
    compared(site, {"a/pl": ledger()}, {"a/pl": ledger({4001: largest, 4002: "5003.50", 4003: "1e400"})})
    text = page(client, "/runs/1/diffs/a/pl")
    assert "1e+308 to 1.798e+308: 1 up, 0 down" in text
    for path in ("/runs/1?tab=differences", "/runs/1/report.html", "/runs/1/report.md"):
        page(client, path)


def test_each_class_says_why(whole: FlaskClient) -> None:
    for unit, words in {
        "tenant_001/cash": "The bytes differ, the figures do not: numbers within the tolerance. By the rule */cash.",
        "tenant_001/vat": "the same bytes, so no file was read",
        "tenant_003/tax": "The baseline has an output, and the candidate failed.",
        "tenant_004/tax": "The baseline failed",
        "tenant_005/tax": "It failed on both legs",
        "tenant_006/vat": "Only the baseline lists this unit",
        "tenant_007/notes": "Only the candidate lists this unit",
        "tenant_009/bs": "1 row changed, 1 file missing, 1 file new",
    }.items():
        assert words in page(whole, f"/runs/1/diffs/{unit}"), unit
    assert "KeyError: tax_code (ledger.rb:42)" in page(whole, "/runs/1/diffs/tenant_003/tax")
    text = page(whole, "/runs/1/diffs/tenant_009/bs")
    assert "old.csv" in text
    assert 'href="/runs/1/diffs/tenant_009/bs?file=a.csv#cells-title"' in text


def test_a_cell_is_text_and_no_formula(whole: FlaskClient) -> None:
    text = page(whole, "/runs/1/diffs/tenant_008/bs")
    assert "&lt;b&gt;n/a&lt;/b&gt;" in text
    answer = whole.get("/api/v1/runs/1/units/tenant_008/bs/differences.csv")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert b",value,4080,amount,'=1+1,<b>n/a</b>," in answer.data
    assert "tenant_008/bs,different,1,3,0,39" in page(whole, "/api/v1/runs/1/diffs.csv?class=different")


def test_durations_name_what_is_slower(site: Site, client: FlaskClient) -> None:
    seconds = {f"{leg}:{unit}": 2.0 for leg in ("baseline", "candidate") for unit in ("a/pl", "a/bs", "a/cash")}
    seconds |= {"candidate:a/bs": 3.5, "baseline:a/cash": 0.01, "candidate:a/cash": 0.05}
    made = {"a/pl": ledger(), "a/bs": ledger(), "a/cash": ledger()}
    compared(site, made, made, seconds)
    text = page(client, "/runs/1/differences/durations")
    assert "<b>1 unit</b> is slower than 1.5× the baseline" in text
    assert "1.75×" in text
    assert "a/cash</a>" not in text  # shorter than the floor
    found = client.get("/api/v1/runs/1/latency").json
    assert (found["units"], found["count"], found["slower"][0]["unit"]) == (3, 1, "a/bs")
    assert (found["baseline"], found["candidate"]) == (4.01, 5.55)


def test_the_api_gives_what_the_page_shows(whole: FlaskClient) -> None:
    found = whole.get("/api/v1/runs/1/comparison").json
    assert found["differing"] == 18
    assert found["counts"]["different"] == 14
    assert found["reports"][0]["name"] == "pl"
    assert found["columns"][0]["column"] == "amount"
    heat = whole.get("/api/v1/runs/1/comparison/map").json
    row = [one["name"] for one in heat["tenants"]].index("tenant_006")
    assert heat["cells"][row][heat["reports"].index("vat")] == "missing"
    assert heat["cells"][row][heat["reports"].index("notes")] is None
    assert (heat["whole"], heat["differing"]) == (True, 15)
    page_of = whole.get("/api/v1/runs/1/comparison/map?first=14&limit=5").json
    assert len(page_of["tenants"]) == 1


def test_a_run_of_one_branch_has_no_differences(site: Site, client: FlaskClient) -> None:
    site.passed()
    assert client.get("/runs/1?tab=differences").headers["Location"] == "/runs/1"
    assert "tab=differences" not in page(client, "/runs/1")
    for path in ("/runs/1/diffs/a", "/runs/1/differences/live", "/runs/1/report.md", "/api/v1/runs/1/comparison"):
        assert client.get(path).status_code == 409, path


def test_the_report_is_one_file(whole: FlaskClient, site: Site, tmp_path: Path) -> None:
    answer = whole.get("/runs/1/report.html")
    text = answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<(script|link|img)\b|url\(|@import", text)
    for words in (
        "18 of 109 units",
        "tenant_017/pl",
        "<del>5241.25</del>",
        "candidate failed",
    ):
        assert words in text
    assert "&lt;b&gt;n/a" in text
    short = page(whole, "/api/v1/runs/1/report.md")
    assert short.startswith("### Different: 18 of 109 units")
    assert "| Different | 14 |" in short
    assert "[tenant\\_001/pl](http://localhost/runs/1/diffs/tenant_001/pl)" in short
    site.submit(options={"compare": True})
    assert whole.get("/runs/2/report.html").status_code == 409


def test_columns_that_came_and_went_are_named(site: Site, client: FlaskClient) -> None:
    old = table((1, 2, 3), head="account,a,b")
    new = table((1, 2, 4), head="account,a,c")
    compared(site, {"x/pl": old}, {"x/pl": new})
    text = page(client, "/runs/1/diffs/x/pl")
    assert "column added: c" in text
    assert "column removed: b" in text
    assert "column added" in page(client, "/runs/1?tab=differences")
