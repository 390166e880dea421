"""`seatrial diff`: what differs in a run, or two local outputs compared as a compare run does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Never

import click

from jobs.cli_common import (
    EXIT_FAILED,
    EXIT_PASSED,
    EXIT_USAGE,
    Failure,
    current_server,
    pass_config,
    problem_line,
)
from jobs.cli_show import plain, say_json
from runner.compare import Budget, Output, compare, count_rows
from runner.compare_files import unit_of
from runner.compare_rules import RuleBook, parse_rules
from runner.compare_tree import compare_trees, is_directory
from runner.comparison import Comparison, Outcome, OutputsComparison, Rows
from runner.errors import SpecError
from runner.spec_rule import Rule

# How many differences are kept of one file, and how many of all the text shows.
KEPT, SHOWN = 1_000, 20


@click.command()
@click.argument("a", metavar="RUN|A")
@click.argument("b", metavar="[UNIT]|B", required=False)
@click.option("--rules", metavar="FILE", help="A seatrial.yml, or a YAML file of rules alone (for A and B).")
@click.option("--format", "form", type=click.Choice(("text", "json", "html")), default="text", help="How to tell it.")
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    metavar="N",
    help=f"Tell N differing units, or the N largest differences (default: text {SHOWN}, others {KEPT:,}, of A and B "
    "each file).",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Stop after S seconds a file, and say so (for A and B).",
)
@click.option(
    "--download",
    type=click.Choice(("csv", "json", "parquet")),
    help="Fetch the UNIT's stored differences as a file instead.",
)
@click.option("-o", "--output", "target", metavar="FILE|DIR", help="Where --download puts it; - is standard output.")
@click.option("--server", metavar="URL", help="The server of RUN (default: server.listen of the settings).")
@pass_config
def diff(
    config: Path | None,
    a: str,
    b: str | None,
    rules: str | None,
    form: str,
    limit: int | None,
    seconds: float | None,
    download: str | None,
    target: str | None,
    server: str | None,
) -> None:
    """Show what differs in a compare run, or compare two local files or directories as one does.

    RUN is a run's number: its classes, groups of differences and differing units; with UNIT that unit's
    differences, the largest first. Exit code 0: passed; 1: different; 2: it cannot be told (yet). A number that
    is a file here too is the file.

    A is the released side, B the candidate, both local and without a server. CSV, TSV, JSON lines and Parquet are
    compared by rows and cells, everything else by bytes. In directories files are matched by their paths. A rule
    holds for the paths that it matches without their extensions. Exit code 0: the same, or equivalent within the
    rules; 1: different; 2: something cannot be read.

    Example: seatrial diff 7 tenant_042/pl

    \b
    Others:
      seatrial diff 7 --format json
      seatrial diff 7 tenant_042/pl --download parquet
      seatrial diff old.csv new.csv
      seatrial diff released/ candidate/ --rules seatrial.yml
      seatrial diff released/ candidate/ --format html > report.html
    """
    given = {"--rules": rules, "--seconds": seconds}
    if a.isascii() and a.isdecimal() and not Path(a).exists():
        _of_run(config, server, int(a), b, form, limit, download, target, given)
    for name, value in {"--download": download, "--output": target, "--server": server}.items():
        if value is not None:
            raise click.UsageError(f"{name} is for a run, and {a!r} is no run's number.")
    if b is None:
        raise click.UsageError(f"Give two files or directories, or a run's number instead of {a!r}.")
    _of_files(Path(a), Path(b), rules, form, limit, seconds)


def _of_run(
    config: Path | None,
    server: str | None,
    run: int,
    unit: str | None,
    form: str,
    limit: int | None,
    download: str | None,
    target: str | None,
    given: Mapping[str, object],
) -> Never:
    """Tell what differs in a run, and end with its exit code."""
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} is for two files: run {run} was compared by the rules of its branch.")
    if form == "html":
        raise click.UsageError(f"A run's page is its report: seatrial report {run} -o run-{run}.html")
    if download is not None and unit is None:
        raise click.UsageError(f"--download is for one unit: seatrial diff {run} UNIT --download {download}")
    if target is not None and download is None:
        raise click.UsageError("--output is for --download.")
    if not 1 <= run < 2**63:
        raise click.UsageError(f"{run} is no run's number.")
    from jobs import cli_diff_run
    from jobs.api_client import ApiClient

    shown = (SHOWN if form == "text" else KEPT) if limit is None else limit
    with ApiClient(server or current_server(config)) as client:
        code = EXIT_PASSED
        if unit is not None and download is not None:
            cli_diff_run.fetch(client, run, unit, download, target)
        elif unit is not None:
            code = cli_diff_run.tell_unit(client, run, unit, as_json=form == "json", limit=shown)
        else:
            code = cli_diff_run.tell_run(client, run, as_json=form == "json", limit=shown)
    click.get_current_context().exit(code)


def _of_files(a: Path, b: Path, rules: str | None, form: str, limit: int | None, seconds: float | None) -> Never:
    """Compare two local outputs, and end with the exit code of what was found."""
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
