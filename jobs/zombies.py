"""Machines that run and are not heard of, or run too long: they are told at once, and left alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from jobs.capacity_policy import Policy
from jobs.idle_policy import seconds_words
from jobs.machines import Action, Decision, Machine, MachineState


def is_up(machine: Machine, policy: Policy, now: datetime) -> bool:
    """Tell whether a running machine's worker was heard of since its start, and lately."""
    return machine.state is MachineState.RUNNING and registered(machine) and not is_silent(machine, policy, now)


def registered(machine: Machine) -> bool:
    """Tell whether the machine's worker was heard of since the machine was started."""
    seen = machine.seen_at
    return machine.host is not None and seen is not None and (machine.started_at is None or seen >= machine.started_at)


def is_silent(machine: Machine, policy: Policy, now: datetime) -> bool:
    """Tell whether nothing was heard of a machine lately."""
    return machine.seen_at is None or now - machine.seen_at > policy.silent


def never_registered(machine: Machine, policy: Policy, now: datetime) -> bool:
    """Tell whether no worker of a machine was heard of though it has been on for long enough."""
    since = machine.started_at or machine.state_since
    return not registered(machine) and now - since >= policy.register


def alarms(machine: Machine, policy: Policy, now: datetime) -> Iterator[Decision]:
    """Say what is wrong with a machine that costs money."""
    if machine.refused is not None or not machine.state.billed:
        return
    if never_registered(machine, policy, now):
        text = f"It was started, and no worker has registered within {seconds_words(policy.register)}."
        yield Decision(Action.ALARM, "never_registered", text, machine.instance)
    elif machine.seen_at is not None and registered(machine) and is_silent(machine, policy, now):
        text = f"Nothing was heard of its worker for {seconds_words(now - machine.seen_at)}, and it runs on."
        yield Decision(Action.ALARM, "silent", text, machine.instance)
    since = machine.started_at
    if policy.maximum_run is not None and since is not None and now - since > policy.maximum_run:
        text = f"It has been running for {seconds_words(now - since)}, longer than {seconds_words(policy.maximum_run)}."
        yield Decision(Action.ALARM, "maximum_run", text, machine.instance)
