"""What idle policies would have cost, and made people wait: over a server's history, or over trace files."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.api_client import ApiClient, part
from jobs.cli_client import json_option
from jobs.cli_common import EXIT_USAGE, Failure, current_settings, pass_config
from jobs.cli_show import columns, say_json, say_lines
from runner.quantities import QuantityError, parse_duration

if TYPE_CHECKING:
    from jobs.capacity import Policy
    from jobs.settings import Settings
    from jobs.simulate import Score, Week

MOST = 20_000  # runs of a history, the newest


@click.command("simulate")
@click.argument("traces", nargs=-1, metavar="[TRACE]...", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--pool", metavar="NAME", help="The pool whose policy and history it is about (default: the only one).")
@click.option("--boot", metavar="TIME", help="How long a machine boots, such as 90s (default: as the pool says).")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a plot to this HTML file.")
@click.option("--server", metavar="URL", help="The server (default: server.listen of the settings).")
@json_option
@pass_config
def simulate(
    config: Path | None,
    traces: tuple[Path, ...],
    pool: str | None,
    boot: str | None,
    plot: Path | None,
    server: str | None,
    *,
    as_json: bool,
) -> None:
    """Say what idle policies would have cost, and how long people would have waited.

    Over the runs that the server remembers of a pool, or over TRACE files: CSV with the columns week, event (submit or
    form_opened), at_s, duration_s. Each policy is held against the clairvoyant bound, which knows the next run.

    Example: seatrial capacity simulate --plot cost.html
    """
    from jobs.capacity_plot import Panel, page
    from jobs.simulate import compare, usual
    from jobs.traces import TraceError, read_trace

    settings = current_settings(config)
    name, policy = _policy(settings, pool, boot)
    try:
        sources = {path.stem: read_trace(path) for path in traces}
    except (TraceError, OSError) as error:
        raise Failure(str(error), EXIT_USAGE) from None
    note = ""
    if not sources:
        with ApiClient(server or settings.server.url) as client:
            sources = {f"history of {name}": _history(client, name, policy)}
        if not any(week.forms for week in sources[f"history of {name}"]):
            note = "No opened form is in the history: pre-warming shows no gain here."
    panels = []
    for title, weeks in sources.items():
        try:
            panels.append(Panel(title, compare(weeks, usual(policy)), len(weeks), note))
        except ValueError as error:
            raise Failure(f"{title}: {error}.", EXIT_USAGE) from None
    if plot is not None:
        try:
            plot.write_text("".join(page(panels)), "utf-8")
        except OSError as error:
            raise Failure(f"The plot cannot be written: {error}", EXIT_USAGE) from None
    if as_json:
        say_json({panel.title: [_json(score, panel.weeks) for score in panel.scores] for panel in panels})
        return
    for number, panel in enumerate(panels):
        say_lines([*([""] if number else []), f"{panel.title} ({_weeks(panel.weeks)})"])
        say_lines(columns(_HEAD, [_row(score, panel.weeks) for score in panel.scores]))
    if note:
        click.echo(note, err=True)
    if plot is not None:
        click.echo(f"Plot: {plot}", err=True)


def _policy(settings: Settings, pool: str | None, boot: str | None) -> tuple[str, Policy]:
    """Find the pool that is meant, and its policy."""
    from jobs.pool_policy import policy_of

    known = {name: found for name, found in settings.pools.items() if found.is_ec2} or settings.pools
    if pool is None and len(known) > 1:
        raise Failure(f"There are several pools: name one by --pool ({', '.join(known)}).", EXIT_USAGE)
    name = pool or next(iter(known))
    if name not in settings.pools:
        raise Failure(f"There is no pool {name}. There are: {', '.join(settings.pools)}.", EXIT_USAGE)
    policy = policy_of(settings.pools[name], lease=settings.server.lease)
    if boot is None:
        return name, policy
    try:
        seconds = parse_duration(boot)
    except QuantityError as error:
        raise Failure(f"--boot {error}.", EXIT_USAGE) from None
    if not 1 <= seconds <= 3600:
        raise Failure("--boot must be from 1s to 1h.", EXIT_USAGE)
    return name, replace(policy, boot=timedelta(seconds=seconds))


def _history(client: ApiClient, pool: str, policy: Policy) -> tuple[Week, ...]:
    """Ask for what came to the pool."""
    from jobs.traces import history

    found = client.get(f"/capacity/{part(pool)}/arrivals", limit=MOST)
    return history(found["runs"], found["forms"], policy.schedule.zone)


_HEAD = ("POLICY", "COST / BOUND", "BOOT WAIT", "HOURS A WEEK", "STARTS A WEEK")


def _row(score: Score, weeks: int) -> tuple[str, ...]:
    return (
        score.name,
        f"{score.ratio:.3f}",
        f"{score.wait:.1f} s",
        f"{score.hours / weeks:.1f}",
        f"{score.starts / weeks:.1f}",
    )


def _json(score: Score, weeks: int) -> dict[str, Any]:
    return {
        "policy": score.name,
        "cost_ratio": round(score.ratio, 6),
        "boot_wait_seconds": round(score.wait, 3),
        "hours": round(score.hours, 3),
        "starts": score.starts,
        "weeks": weeks,
    }


def _weeks(count: int) -> str:
    return "1 week" if count == 1 else f"{count} weeks"
