"""Whether Seatrial may do with the machines of a pool what it has to, and whether they are such that it will: by dry runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.cloud import Cloud, CloudRefused, CloudUnavailable, Expected, Launch, Seen, refusal
from jobs.doctor import Finding, Level
from jobs.machines import MachineState

POLICY = "docker/aws/policies/controller.json"
GROW_POLICY = "docker/aws/policies/grow-pool.json"
SHOWN = 20  # machines that are looked at one by one


@dataclass(frozen=True)
class MachineFacts:
    """What EC2 says of a machine. `refused`: why Seatrial leaves it alone. `start`, `stop`: why a dry run of it failed.

    `on_shutdown`: what becomes of it when it shuts itself down; None when that was not told.
    """

    seen: Seen
    refused: str | None = None
    start: str = ""
    stop: str = ""
    on_shutdown: str | None = None


@dataclass(frozen=True)
class PoolFacts:
    """What was found of a pool. `error`: why it could not be looked at. `launch`: why a dry run of a launch failed,
    None when no template is set. `others`: machines that were not looked at one by one."""

    expected: Expected
    account: str = ""
    machines: tuple[MachineFacts, ...] = ()
    missing: tuple[str, ...] = ()
    others: int = 0
    launch: str | None = None
    error: str = ""


def look_at_pool(
    cloud: Cloud, expected: Expected, *, instances: Sequence[str] = (), template: str | None = None
) -> PoolFacts:
    """Ask EC2 about a pool, and try every right of its controller by a dry run: nothing is started, stopped or made."""
    try:
        account = cloud.account()
        found = cloud.machines(expected.pool, instances)
    except (CloudRefused, CloudUnavailable) as error:
        return PoolFacts(expected, error=error.text)
    machines = tuple(_look_at_machine(cloud, seen, expected, account) for seen in found[:SHOWN])
    launch = None
    if template is not None:
        launch = _tried(lambda: cloud.may_launch(Launch(template, expected.pool, "seatrial-doctor")))
    missing = tuple(sorted(set(instances) - {seen.instance for seen in found}))
    return PoolFacts(expected, account, machines, missing, max(0, len(found) - SHOWN), launch)


def _look_at_machine(cloud: Cloud, seen: Seen, expected: Expected, account: str) -> MachineFacts:
    refused = refusal(seen, expected, account=account)
    if refused is not None or seen.state is MachineState.GONE:
        return MachineFacts(seen, refused)  # not even a dry run
    behaviour = None
    try:
        behaviour = cloud.on_shutdown(seen.instance)
    except (CloudRefused, CloudUnavailable):
        pass  # said by its absence
    return MachineFacts(
        seen,
        start=_tried(lambda: cloud.may_start(seen.instance)),
        stop=_tried(lambda: cloud.may_stop(seen.instance)),
        on_shutdown=behaviour,
    )


def _tried(ask: Callable[[], None]) -> str:
    try:
        ask()
    except (CloudRefused, CloudUnavailable) as error:
        return error.text
    return ""


def judge_pool(facts: PoolFacts, *, dead_man: bool) -> list[Finding]:
    """Judge a pool by what was found; `dead_man`: whether its machines are to shut themselves down."""
    what, expected = f"pool {facts.expected.pool}", facts.expected
    if facts.error:
        remedy = f"Give this host's role the policy {POLICY}, and the way to EC2's endpoint; docs/aws.md tells how."
        return [Finding(what, Level.PROBLEM, facts.error, remedy)]
    found = []
    if facts.account != expected.account:
        text = f"the credentials are those of account {facts.account}, the pool is in {expected.account}"
        found.append(
            Finding(
                f"{what}, account", Level.PROBLEM, text, "Use a role of that account, or correct account of the pool."
            )
        )
    usable = [one for one in facts.machines if one.refused is None and one.seen.state is not MachineState.GONE]
    if facts.missing:
        text = f"EC2 knows no {', '.join(facts.missing)} in {expected.region}"
        found.append(
            Finding(f"{what}, instances", Level.PROBLEM, text, "Correct instances of the pool, or its region.")
        )
    if usable:
        text = f"{len(usable) + facts.others} machines in {expected.region}, account {facts.account}"
        found.append(Finding(what, Level.OK, text.replace("1 machines", "1 machine") if len(usable) == 1 else text))
    elif facts.launch is None:
        text = f"no machine of {expected.region} can be used"
        remedy = f"Mark instances with the tag seatrial:pool = {expected.pool}, or set launch_template."
        found.append(Finding(what, Level.PROBLEM, text, remedy))
    if facts.launch == "":
        found.append(Finding(f"{what}, growing", Level.OK, "a launch from the template is allowed"))
    elif facts.launch:
        remedy = f"Give this host's role the policy {GROW_POLICY}, correct launch_template, or leave it out."
        found.append(Finding(f"{what}, growing", Level.PROBLEM, facts.launch, remedy))
    for one in facts.machines:
        found += _judge_machine(what, one, dead_man=dead_man)
    return found


def _judge_machine(pool: str, one: MachineFacts, *, dead_man: bool) -> Iterator[Finding]:
    what = f"{pool}, {one.seen.instance}"
    if one.refused is not None:
        remedy = (
            "Seatrial never starts or stops it. Correct its tags if it belongs to the pool, else take the marker off."
        )
        yield Finding(what, Level.PROBLEM, f"is left alone: {one.refused}", remedy)
        return
    if one.seen.state is MachineState.GONE:
        return
    denied = [text for text in (one.start, one.stop) if text]
    for text in denied:
        yield Finding(what, Level.PROBLEM, text, f"Give this host's role the policy {POLICY}; docs/aws.md tells how.")
    if not denied:
        yield Finding(what, Level.OK, f"{one.seen.state.value}; starting and stopping it is allowed")
    if one.on_shutdown != "stop" and dead_man:
        does = "is not told" if one.on_shutdown is None else f"is {one.on_shutdown}"
        remedy = "Set it to stop (aws ec2 modify-instance-attribute --instance-initiated-shutdown-behavior), or dead_man = never."
        text = f"what a shutdown does {does}: it never shuts itself down when the server is gone"
        yield Finding(f"{what}, dead man", Level.WARNING, text, remedy)


__all__ = ["MachineFacts", "PoolFacts", "judge_pool", "look_at_pool"]
