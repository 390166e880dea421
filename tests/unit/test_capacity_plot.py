"""The plot of policies: one file that needs nothing else, and the command that writes it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from jobs.capacity_plot import Panel, excess_words, page
from jobs.cli_capacity_simulate import simulate
from jobs.simulate import OWN, Score

TRACES = Path(__file__).parents[2] / "examples" / "traces"
RATE = str(TRACES / "rate-0.3.csv")
SCORES = (
    Score("clairvoyant bound", 1.0, 52.9, 64.0, 144),
    Score("always on", 28.35, 0.0, 1680.0, 10),
    Score(OWN, 1.017, 12.7, 65.7, 171),
)


class Strict(HTMLParser):
    """Take a page apart; tags that are not closed in order are an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def taken_apart(text: str) -> Strict:
    found = Strict()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def test_a_page_is_whole_and_loads_nothing() -> None:
    text = "".join(page([Panel("a <trace>", SCORES, 10, "a note")]))
    found = taken_apart(text)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in found.seen}
    assert "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    assert "a &lt;trace&gt;: 10 weeks" in text
    assert "a note" in text


def test_each_policy_has_a_dot_within_the_plot_and_a_row() -> None:
    text = "".join(page([Panel("one", SCORES, 1)]))
    dots = [attrs for tag, attrs in taken_apart(text).seen if tag == "circle"]
    assert len(dots) == len(SCORES)
    assert all(64 <= float(dot["cx"] or 0) <= 696 and 20 <= float(dot["cy"] or 0) <= 284 for dot in dots)
    for words in ("clairvoyant bound", "28.4×", "+1.7 %", "12.7 s", "one: 1 week<"):
        assert words in text
    assert text.count('class="own"') == 2


@pytest.mark.parametrize("wait", [0.0, 0.01, 7.0, 45.0, 900.0, 50_000.0])
@pytest.mark.parametrize("ratio", [1.0, 1.001, 3.0, 40.0, 5_000.0])
def test_any_scores_can_be_drawn(wait: float, ratio: float) -> None:
    text = "".join(page([Panel("any", (SCORES[0], Score(OWN, ratio, wait, 1.0, 1)), 1)]))
    dots = [attrs for tag, attrs in taken_apart(text).seen if tag == "circle"]
    assert all(64 <= float(dot["cx"] or 0) <= 696 and 19 <= float(dot["cy"] or 0) <= 285 for dot in dots)
    assert text.count("<line") < 40


def test_words_of_cost() -> None:
    assert [excess_words(score) for score in SCORES] == ["+0.0 %", "28.4×", "+1.7 %"]


@click.group()
@click.option("--config", type=click.Path(path_type=Path))
def seatrial(config: Path | None) -> None:
    """Stand for the command line."""


seatrial.add_command(simulate)


def call(tmp_path: Path, *words: str, settings: str = "") -> Result:
    file = tmp_path / "seatrial.toml"
    file.write_text(settings, "utf-8")
    return CliRunner().invoke(seatrial, ["--config", str(file), "simulate", *words])


def test_traces_are_simulated_and_plotted(tmp_path: Path) -> None:
    plot = tmp_path / "plot.html"
    found = call(tmp_path, RATE, "--plot", str(plot))
    assert found.exit_code == 0, found.output
    assert "rate-0.3 (10 weeks)" in found.output
    assert re.search(r"^clairvoyant bound +1\.000", found.output, re.MULTILINE)
    assert re.search(r"^this pool +1\.0[0-4]", found.output, re.MULTILINE)
    taken_apart(plot.read_text("utf-8"))


def test_scores_are_given_to_programs(tmp_path: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = json.loads(call(tmp_path, RATE, "--json").stdout)
    (scores,) = found.values()
    assert [score["policy"] for score in scores][:2] == ["clairvoyant bound", "always on"]
    assert scores[-1]["policy"] == OWN
    assert scores[-1]["cost_ratio"] <= 1.05
    assert scores[-1]["boot_wait_seconds"] <= 15


def test_a_longer_boot_is_waited_for_longer(tmp_path: Path) -> None:
    short, long = (
        json.loads(call(tmp_path, RATE, "--json", "--boot", boot).stdout)["rate-0.3"] for boot in ("30s", "3m")
    )
    assert short[0]["boot_wait_seconds"] < 30 < long[0]["boot_wait_seconds"]


EC2 = 'provider = "ec2"\nregion = "eu-central-1"\naccount = "123456789012"\n'


def test_the_policy_is_that_of_the_named_pool(tmp_path: Path) -> None:
    settings = f'[pools.a]\n{EC2}idle = "never"\n[pools.b]\n{EC2}idle = "at once"\n'
    of_a = json.loads(call(tmp_path, RATE, "--json", "--pool", "a", settings=settings).stdout)["rate-0.3"][-1]
    of_b = json.loads(call(tmp_path, RATE, "--json", "--pool", "b", settings=settings).stdout)["rate-0.3"][-1]
    assert of_a["cost_ratio"] > 5 > of_b["cost_ratio"]
    unnamed = call(tmp_path, RATE, settings=settings)
    assert (unnamed.exit_code, "name one by --pool (a, b)" in unnamed.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ((RATE, "--pool", "x"), "There is no pool x. There are: local."),
        ((RATE, "--boot", "soon"), "--boot is not a duration"),
        ((RATE, "--boot", "2h"), "--boot must be from 1s to 1h."),
        (("missing.csv",), "does not exist"),
        ((str(TRACES / "README.md"),), ":1: the first line must be week,event,at_s,duration_s"),
        ((RATE, "--plot", "/nowhere/plot.html"), "The plot cannot be written"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, words: tuple[str, ...], wrong: str) -> None:
    found = call(tmp_path, *words)
    assert found.exit_code == 2
    assert wrong in found.output


def test_a_trace_without_runs_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("week,event,at_s,duration_s\n0,form_opened,1,\n", "utf-8")
    found = call(tmp_path, str(empty))
    assert (found.exit_code, "empty: there is no run in this time." in found.output) == (2, True)
