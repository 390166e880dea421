"""`seatrial diff`: two local outputs compared as a compare run does it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from jobs.cli_common import EXIT_FAILED, EXIT_PASSED, EXIT_USAGE, Failure, problem_line
from jobs.cli_show import plain, say_json
from runner.compare import Budget, Output, compare, count_rows, unit_of
from runner.compare_rules import RuleBook, parse_rules
from runner.compare_tree import compare_trees, is_directory
from runner.comparison import Comparison, Outcome, OutputsComparison, Rows
from runner.errors import SpecError
from runner.spec import Rule

# How many differences are kept of one file, and how many of all the text shows.
KEPT, SHOWN = 1_000, 20


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--rules", metavar="FILE", help="A seatrial.yml, or a YAML file of rules alone.")
@click.option("--format", "form", type=click.Choice(("text", "json", "html")), default="text", help="How to tell it.")
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    metavar="N",
    help=f"Tell the N largest differences (default: text {SHOWN}, others {KEPT:,} a file).",
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after S seconds a file, and say so."
)
def diff(a: Path, b: Path, rules: str | None, form: str, limit: int | None, seconds: float | None) -> None:
    """Compare two local files or directories, as a compare run does.

    A is the released side, B the candidate. CSV, TSV, JSON lines and Parquet are compared by rows and cells,
    everything else by bytes. In directories files are matched by their paths. A rule holds for the paths that
    it matches without their extensions. Exit code 0: the same, or equivalent within the rules; 1: different;
    2: something cannot be read.

    Example: seatrial diff old.csv new.csv

    \b
    Others:
      seatrial diff released/ candidate/ --rules seatrial.yml
      seatrial diff a.csv b.csv --rules rules.yml --format json
      seatrial diff released/ candidate/ --format html > report.html
    """
    book = RuleBook(_rules(rules))
    inside = is_directory(a), is_directory(b)
    if inside[0] is not inside[1]:
        raise Failure(f"{a} and {b}: one is a directory and the other is not; give two of a kind.", EXIT_USAGE)
    shown = (SHOWN if form == "text" else KEPT) if limit is None else limit
    budget = Budget(seconds, max(shown, KEPT) if form == "text" else shown)
    found: Comparison | OutputsComparison
    if inside[0]:
        found = compare_trees(a, b, book, budget=budget, parquet=_Parquet())
    else:
        rule = _rule_of(book, (a, b))
        found = compare(Output.of(a), Output.of(b), rule, budget=budget, parquet=_Parquet())
        if found.outcome is Outcome.SAME:
            found = replace(found, rows=Rows(same=count_rows(Output.of(a), rule)))
    for match in book.idle():
        click.echo(f"Warning: the rule {plain(match)!r} of {rules} matches nothing.", err=True)
    if form == "json":
        say_json({"a": str(a), "b": str(b), **found.as_json(), "idle_rules": list(book.idle())})
    elif form == "html":
        from jobs.diff_html import page

        for piece in page(found, (str(a), str(b)), shown):
            click.echo(piece, nl=False)
    else:
        _say_text(found, (str(a), str(b)), shown)
    click.get_current_context().exit(EXIT_FAILED if found.outcome is Outcome.DIFFERENT else EXIT_PASSED)


class _Parquet:
    """Imports the reader when there is Parquet to be read."""

    def to_csv(self, source: Path, target: Path, *, seconds: float | None) -> tuple[tuple[str, str], ...]:
        from runner.adapters.table_duckdb import DuckdbParquet

        return DuckdbParquet().to_csv(source, target, seconds=seconds)


def _rule_of(book: RuleBook, paths: Iterable[Path]) -> Rule | None:
    """Choose the rule of two files: by their paths as they were given, then by their full ones."""
    names = [str(name) for path in paths for name in (path, path.absolute())]
    return book.choose(*(choice for name in names for choice in (unit_of(name), name)))


def _rules(file: str | None) -> tuple[Rule, ...]:
    if file is None:
        return ()
    try:
        return parse_rules(Path(file).read_bytes(), source=file)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", EXIT_USAGE) from None
    except SpecError as error:
        lines = "\n".join(f"  {problem_line(file, problem)}" for problem in error.problems)
        raise Failure(f"{plain(file)} is not valid:\n{lines}", EXIT_USAGE) from None


def _say_text(found: Comparison | OutputsComparison, names: tuple[str, str], limit: int) -> None:
    from rich.console import Console

    from jobs.diff_text import file_lines, tree_lines

    # Colours are for terminals, and for those without NO_COLOR; both is known to the console.
    console = Console(soft_wrap=True, highlight=False)
    write = file_lines(found, names, limit) if isinstance(found, Comparison) else tree_lines(found, names, limit)
    for line in write:
        console.print(line)
