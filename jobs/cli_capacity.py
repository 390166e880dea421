"""Pools on the command line: how they stand and why, start, stop and keep machines awake."""

from __future__ import annotations

from typing import Any

import click

from jobs.api_client import ApiClient, Document, part
from jobs.cli_capacity_simulate import simulate
from jobs.cli_client import RUN_ID, json_option, with_client
from jobs.cli_common import EXIT_USAGE, Failure
from jobs.cli_show import columns, moment, plain, say_json, say_lines

MACHINE_HEAD = ("MACHINE", "STATE", "TASKS", "DISK FREE", "UNTIL (UTC)", "WHY")


@click.group(invoke_without_command=True)
@click.option("--server", metavar="URL", help="The server (default: server.listen of the settings).")
@json_option
@click.pass_context
def capacity(context: click.Context, server: str | None, *, as_json: bool) -> None:
    """Show pools, their workers and machines; start, stop and keep machines awake.

    Without a command: status.

    Example: seatrial capacity
    """
    if context.invoked_subcommand is None:
        context.invoke(status, server=server, as_json=as_json)


@capacity.command()
@json_option
@with_client
def status(client: ApiClient, *, as_json: bool) -> None:
    """List pools, their workers and machines, and what waits.

    Example: seatrial capacity status
    """
    found = client.get("/capacity")
    if as_json:
        say_json(found)
        return
    pools = [(p["name"], p["slots"], len(p["workers"]), p["running"], p["queued"]) for p in found["pools"]]
    say_lines(columns(("POOL", "SLOTS", "WORKERS", "RUNNING", "QUEUED"), pools))
    for pool in found["pools"]:
        if pool["ec2"] is not None:
            say_lines(["", *_machines(pool["name"], pool["ec2"])])
    rows = [
        (worker["name"], _does(worker), worker["host"], worker["pid"], moment(worker["seen_at"]))
        for pool in found["pools"]
        for worker in pool["workers"]
    ]
    if rows:
        say_lines(["", *columns(("WORKER", "DOES", "HOST", "PID", "SEEN (UTC)"), rows)])


def _machines(pool: str, found: Document) -> list[str]:
    lines = []
    if found["machines"]:
        rows = [
            (
                one["instance"],
                one["state"],
                f"{one['tasks']}/{one['slots']}",
                _disk(one["disk"]),
                moment(one["decision"]["until"]),
                one["decision"]["reason"],
            )
            for one in found["machines"]
        ]
        lines += columns(MACHINE_HEAD, rows)
    else:
        lines.append(f"Pool {pool}: no machine is known yet.")
    for one in found["machines"]:
        lines += [f"! {one['instance']}: {plain(alarm['reason'])}" for alarm in one["alarms"]]
    lines += [f"Pool {pool}: {plain(one['reason'])}" for one in found["news"]]
    lines += [_hold(one) for one in found["holds"]]
    lines += [_wish(pool, one) for one in found["wishes"]]
    if not found["watched"]:
        lines.append(f"! Pool {pool}: no controller looks after it, so nothing is started or stopped: seatrial sweeper")
    elif found["problem"]:
        lines.append(f"! Pool {pool}: EC2 cannot be asked ({plain(found['problem'])}); nothing is stopped meanwhile.")
    return lines


def _wish(pool: str, one: Document) -> str:
    asked = f"Asked for by {plain(one['made_by'])}: {one['kind']} {one['instance'] or pool}"
    return asked if one["outcome"] is None else f"{asked}: {plain(one['outcome'])}"


def _hold(one: Document) -> str:
    why = f": {plain(one['reason'])}" if one["reason"] else ""
    what = one["instance"] or "the pool"
    return f"Hold {one['id']}: {plain(one['made_by'])} keeps {what} awake until {moment(one['until'])} UTC{why}"


def _disk(found: Document | None) -> str:
    return "-" if found is None or not found["total"] else f"{100 * found['free'] // found['total']}%"


def _does(worker: dict[str, Any]) -> str:
    if worker["task"]:
        return f"task {worker['task']}"
    if worker["draining"]:
        return "drains"
    return f"no new work: {worker['shortage']}" if worker.get("shortage") else "free"


_reason = click.option("--reason", metavar="TEXT", default="", help="Why; it is kept with it.")


@capacity.command()
@click.argument("pool")
@click.argument("instance", required=False)
@_reason
@json_option
@with_client
def start(client: ApiClient, pool: str, instance: str | None, reason: str, *, as_json: bool) -> None:
    """Ask for a machine of a pool to be started.

    Any stopped one when none is named. It is kept awake for a while, as whoever asks for it wants to use it;
    `capacity` tells what came of it.

    Example: seatrial capacity start builders
    """
    body = {"instance": instance, "reason": reason}
    found = client.post(f"/capacity/{part(pool)}/start", {k: v for k, v in body.items() if v is not None})
    _say(found, f"{instance or 'A machine'} of pool {pool} is started in a moment.", as_json=as_json)


@capacity.command()
@click.argument("pool")
@click.argument("instance")
@_reason
@json_option
@with_client
def stop(client: ApiClient, pool: str, instance: str, reason: str, *, as_json: bool) -> None:
    """Ask for a machine to be stopped now, by the same steps as one that is idle.

    A busy machine is never stopped: it is refused, with what it does.

    Example: seatrial capacity stop builders i-0abc1234def567890
    """
    found = client.post(f"/capacity/{part(pool)}/stop", {"instance": instance, "reason": reason})
    _say(found, f"{instance} is asked whether it is busy, and stopped if it is not.", as_json=as_json)


@capacity.command()
@click.argument("pool")
@click.argument("instance", required=False)
@click.option("--for", "duration", metavar="TIME", default="2h", show_default=True, help="1m to 7d.")
@_reason
@json_option
@with_client
def hold(client: ApiClient, pool: str, instance: str | None, duration: str, reason: str, *, as_json: bool) -> None:
    """Keep a pool, or one machine of it, awake for a while.

    What runs is not stopped for being idle until then; nothing is started by it.

    Example: seatrial capacity hold builders --for 2h --reason demonstration
    """
    body = {"instance": instance, "duration": duration, "reason": reason}
    found = client.post(f"/capacity/{part(pool)}/hold", {k: v for k, v in body.items() if v is not None})
    _say(found, _hold(found["hold"]), as_json=as_json)


@capacity.command()
@click.argument("hold", type=RUN_ID)
@json_option
@with_client
def release(client: ApiClient, hold: int, *, as_json: bool) -> None:
    """End a hold before its time.

    Example: seatrial capacity release 3
    """
    found = client.post(f"/capacity/holds/{hold}/release")
    _say(found, f"Hold {hold} is over.", as_json=as_json)


@capacity.command()
@click.argument("pool")
@click.argument("instance", required=False)
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many decisions.")
@json_option
@with_client
def why(client: ApiClient, pool: str, instance: str | None, limit: int, *, as_json: bool) -> None:
    """Say why machines run or not: what is decided now, and what was decided before.

    Example: seatrial capacity why builders
    """
    told = client.get(f"/capacity/{part(pool)}/decisions", instance=instance, limit=limit)
    known = next(one for one in client.get("/capacity")["pools"] if one["name"] == pool)
    if known["ec2"] is None:
        raise Failure(
            f"The machines of pool {pool} are there anyway: Seatrial starts and stops none of them.", EXIT_USAGE
        )
    now = [one for one in known["ec2"]["machines"] if instance in (None, one["instance"])]
    if as_json:
        say_json({"machines": now, "news": known["ec2"]["news"], "decisions": told["decisions"]})
        return
    say_lines([f"{one['instance']}: {one['state']}. {plain(one['decision']['reason'])}" for one in now])
    if instance is None:
        say_lines([plain(one["reason"]) for one in known["ec2"]["news"]])
    if told["decisions"]:
        rows = [
            (moment(one["at"]), one["instance"] or "-", one["action"], one["made_by"], one["reason"])
            for one in told["decisions"]
        ]
        say_lines(["", *columns(("AT (UTC)", "MACHINE", "DECIDED", "BY", "WHY"), rows)])


def _say(found: Document, words: str, *, as_json: bool) -> None:
    if as_json:
        say_json(found)
    else:
        click.echo(plain(words))


capacity.add_command(simulate)
