"""The log viewer: untrusted bytes stay inert, large logs stay light, links and search find their lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from web_browser import Eyes, Served

from jobs.run import TaskState

HOSTILE = (
    b"\x1b[31mred\x1b[0m \x1b[1;4mbold\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[0m\n"
    b"\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07 \x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\\n"
    b"\x1b]52;c;aGFjaw==\x07<img src=x onerror=alert(2)><script>alert(3)</script>\n"
    b"\x1b]8;;never ended\n"
    b"\x1b[31\n"
    b" 10%\r 50%\r100% done\r\n"
    b"nul\x00 bell\x07 \xff\xfe {{7*7}} &amp;\n"
    b"last\n"
)


@pytest.fixture
def task(served: Served) -> int:
    """The preparation's task of a run that was submitted; its log is empty."""
    served.site.submit()
    return served.site.service.tasks(1)[0].id


def write(served: Served, data: bytes) -> None:
    """Write the log of the preparation and end the run."""
    claim = served.site.claim()
    for at in range(0, len(data), 1 << 20):
        served.site.log(claim, data[at : at + (1 << 20)])
    served.site.service.cancel(1, user="mio")
    served.site.end(claim, TaskState.CANCELLED)


def test_untrusted_output_is_inert(served: Served, task: int, eyes: Eyes) -> None:
    write(served, HOSTILE)
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    lines = page.locator(".block .line .t")
    expect(lines).to_have_count(8)
    assert lines.all_inner_texts() == [
        "red bold true",
        "click link",
        "<img src=x onerror=alert(2)><script>alert(3)</script>",
        "",
        "",
        "100% done",
        "nul\u2400 bell\u2407 \ufffd\ufffd {{7*7}} &amp;",
        "last",
    ]
    assert page.locator("#log-view .t a, #log-view img, #log-view script").count() == 0
    assert page.locator(".ansi-red-fg").inner_text() == "red"
    assert all(url.startswith(served.url) for url in asked)


def test_a_download_is_byte_exact(served: Served, task: int, eyes: Eyes, tmp_path: Path) -> None:
    data = HOSTILE + bytes(range(256)) * 1_000
    write(served, data)
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    with page.expect_download() as started:
        page.get_by_role("link", name=re.compile("Download")).click()
    target = tmp_path / "kept"
    started.value.save_as(target)
    assert target.read_bytes() == data
    assert started.value.suggested_filename == f"run-1-task-{task}.log"


def test_a_link_leads_to_its_line(served: Served, task: int, eyes: Eyes) -> None:
    write(served, b"".join(b"line number %d\n" % n for n in range(1, 50_001)))
    page = eyes.open(f"/runs/1?tab=log&task={task}#L31234")
    expect(page.get_by_text("line number 31234", exact=True)).to_be_in_viewport()
    expect(page.locator(".line.linked .n")).to_have_text("31234")
    page.locator(".line .n", has_text="31236").click()
    expect(page).to_have_url(re.compile("#L31236$"))
    expect(page.locator(".line.linked .n")).to_have_text("31236")
    page.evaluate("location.hash = '#L7'")
    expect(page.get_by_text("line number 7", exact=True)).to_be_in_viewport()
    page.evaluate("location.hash = '#L70000'")
    expect(page.locator("#log-note")).to_contain_text("50000 lines; there is no line 70000")


def test_a_large_log_stays_light(served: Served, task: int, eyes: Eyes) -> None:
    """1,000,000 lines: the end at once, any place in a moment, a bounded page all the way."""
    write(served, b"".join(b"\x1b[32m%07d\x1b[0m and some words to fill the line\n" % n for n in range(1, 1_000_001)))
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    expect(page.get_by_text("1000000 and some words")).to_be_in_viewport()
    view = page.locator("#log-view")
    for _ in range(12):
        view.evaluate("(el) => { el.scrollTop = 0; }")
        page.wait_for_timeout(60)
    numbers = [int(n) for n in page.locator(".line .n").all_inner_texts()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) <= 9_100
    page.get_by_role("button", name="Top").click()
    expect(page.get_by_text("0000001 and some words")).to_be_in_viewport()
    for _ in range(12):
        view.evaluate("(el) => { el.scrollTop = el.scrollHeight; }")
        page.wait_for_timeout(60)
    numbers = [int(n) for n in page.locator(".line .n").all_inner_texts()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) <= 9_100
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    assert tools.send("Runtime.getHeapUsage")["usedSize"] < 200_000_000


def test_what_is_read_stays_in_place_while_more_is_loaded(served: Served, task: int, eyes: Eyes) -> None:
    write(served, b"".join(b"line number %d\n" % n for n in range(1, 20_001)))
    page = eyes.open(f"/runs/1?tab=log&task={task}#L10000")
    line = page.get_by_text("line number 9900", exact=True)
    line.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    view = page.locator("#log-view")
    view.evaluate("(el) => { el.scrollTop = 700; }")  # near enough to the beginning to load what stands before
    visible = view.evaluate(
        """(el) => { const top = el.getBoundingClientRect().top;
        const line = [...el.querySelectorAll(".line")].find((l) => l.getBoundingClientRect().top > top + 50);
        window.watched = line; return line.getBoundingClientRect().top; }"""
    )
    expect(page.locator(".block")).to_have_count(2)
    assert abs(page.evaluate("window.watched.getBoundingClientRect().top") - visible) < 2


def test_search_finds_in_all_logs(served: Served, eyes: Eyes) -> None:
    run = served.site.passed(["a", "b"])
    claim_logs = [served.site.service.log(task.id) for task in served.site.service.tasks(run.id)]
    assert sum(log.lower().count(b"exported") for log in claim_logs) == 2
    page = eyes.open("/runs/1?tab=log")
    page.keyboard.press("/")
    page.keyboard.type("EXPORTED")
    expect(page.locator("#log-hits")).to_have_text("1 of 2")
    expect(page.locator(".line.linked")).to_contain_text("exported a")
    page.keyboard.press("Enter")
    expect(page.locator("#log-hits")).to_have_text("2 of 2")
    expect(page.locator(".line.linked")).to_contain_text("exported b")
    page.get_by_role("button", name="Next hit").click()
    expect(page.locator("#log-hits")).to_have_text("1 of 2")
    page.locator("#log-find").fill("nowhere to be found")
    expect(page.locator("#log-hits")).to_have_text("no hit")
    assert page.evaluate("CSS.highlights.size") <= 1


def test_search_reaches_the_far_end_of_a_large_log(served: Served, task: int, eyes: Eyes) -> None:
    write(served, b"filler filler filler filler\n" * 400_000 + b"the needle\n" + b"filler\n" * 400_000)
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    page.locator("#log-find").fill("needle")
    expect(page.locator("#log-hits")).to_have_text("1 of 1")
    expect(page.get_by_text("the needle")).to_be_in_viewport()


def test_wrap_is_remembered_and_long_lines_are_cut(served: Served, task: int, eyes: Eyes) -> None:
    write(served, b"x" * 5_000_000 + b"\nshort\n")
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    expect(page.locator(".cut")).to_contain_text("more bytes in this line")
    assert page.locator("#log-view").evaluate("(el) => el.scrollWidth > el.clientWidth")
    page.get_by_label("Wrap").check()
    assert page.locator("#log-view").evaluate("(el) => el.scrollWidth <= el.clientWidth")
    page.reload()
    expect(page.get_by_label("Wrap")).to_be_checked()


def test_an_empty_log_says_so(served: Served, task: int, eyes: Eyes) -> None:
    served.site.service.cancel(1, user="mio")
    page = eyes.open(f"/runs/1?tab=log&task={task}")
    expect(page.locator("#log-view")).to_contain_text("Nothing was printed.")
