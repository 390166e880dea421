"""What the controller asks of a cloud: tell of machines, start, stop and launch them. Nothing else can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from jobs.machines import MachineState
from runner.errors import InfraError

MARKER = "seatrial:pool"
# Every call that Seatrial's server may make, by service. The adapter sends no other one, whoever asks.
ALLOWED: Mapping[str, frozenset[str]] = {
    "ec2": frozenset(
        {"DescribeInstances", "DescribeInstanceAttribute", "StartInstances", "StopInstances", "RunInstances"}
    ),
    "sts": frozenset({"GetCallerIdentity"}),
    "cloudwatch": frozenset({"GetMetricStatistics"}),
}


class CloudUnavailable(InfraError):
    """EC2 does not answer; whether what was asked for has happened is not known."""

    code = "cloud_unavailable"


class CloudAway(CloudUnavailable):
    """EC2 cannot be reached; what was asked for has not happened."""

    code = "cloud_away"


class CloudThrottled(CloudAway):
    """EC2 answers that it is asked too often; what was asked for has not happened."""

    code = "cloud_throttled"


class CloudRefused(InfraError):
    """EC2 refuses what was asked for."""

    code = "cloud_refused"


class NoCapacity(CloudRefused):
    """EC2 has no machine of this type now."""

    code = "no_capacity"


class NoSuchMachine(CloudRefused):
    """EC2 knows no such machine."""

    code = "no_such_machine"


class WrongState(CloudRefused):
    """The machine is in no state in which that can be asked."""

    code = "wrong_state"


class TooLate(CloudRefused):
    """The time within which it could be asked for is over; it was not sent."""

    code = "too_late"


def uptime() -> float:
    """Give the seconds since this machine booted, those of its sleep included: nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Seen:
    """A machine as the cloud tells of it.

    `launched_at`: when it was started last. `stopped_at`: when it was stopped last, as far as that is told.
    """

    instance: str
    state: MachineState
    account: str
    region: str
    kind: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    launched_at: datetime | None = None
    stopped_at: datetime | None = None
    spot: bool = False


@dataclass(frozen=True)
class Launch:
    """One more machine: from a launch template (its name, or its id), of another type if `kind` says so.

    `token`: the same one never makes two machines.
    """

    template: str
    pool: str
    token: str
    kind: str = ""


class Cloud(Protocol):
    """One account in one region.

    Every method raises CloudUnavailable (CloudAway when it was not done for sure), and CloudRefused when the answer is
    no. What changes something is sent once, and not after `until` (by `uptime`): a request that was held up must not
    stop a machine that works again.
    """

    region: str

    def account(self) -> str:
        """Give the account whose credentials these are."""

    def machines(self, pool: str, instances: Sequence[str] = ()) -> list[Seen]:
        """List those that carry the pool's marker, and those with these ids whatever they carry, by their ids."""

    def may_start(self, instance: str) -> None:
        """Raise CloudRefused if a start would be refused; nothing is started."""

    def may_stop(self, instance: str) -> None:
        """Raise CloudRefused if a stop would be refused; nothing is stopped."""

    def may_launch(self, launch: Launch) -> None:
        """Raise CloudRefused if a launch would be refused; nothing is launched."""

    def start(self, instance: str, *, until: float) -> MachineState:
        """Start one machine; gives its state. Raises NoCapacity, NoSuchMachine, WrongState, TooLate."""

    def stop(self, instance: str, *, until: float) -> MachineState:
        """Stop one machine, never terminate it; gives its state. Raises NoSuchMachine, WrongState, TooLate."""

    def launch(self, launch: Launch, *, until: float) -> Seen:
        """Make one machine; it carries the pool's marker from its first moment. Raises NoCapacity, TooLate."""

    def on_shutdown(self, instance: str) -> str:
        """Tell what becomes of a machine that shuts itself down: `stop` or `terminate`."""

    def load(self, instance: str, seconds: float) -> float | None:
        """Give the highest use of its processors lately, in percent; None where nothing was measured."""


Clouds = Callable[[str], Cloud]  # by region; one for each thread


# No setting takes one of these away; whatever people write there, in whatever case.
PRODUCTION_TAGS = tuple(
    f"{key}={value}"
    for key in ("env", "environment", "stage", "tier", "seatrial:environment")
    for value in ("prod", "prd", "production", "live")
)


@dataclass(frozen=True)
class Expected:
    """What a machine has to show before Seatrial starts or stops it. `production`: more tags (`key=value`) that say no."""

    pool: str
    account: str
    region: str
    production: Sequence[str] = ()


def refusal(seen: Seen, expected: Expected, *, account: str) -> str | None:
    """Tell why a machine is none that Seatrial may start or stop, or None. `account`: whose credentials ours are."""
    if account != expected.account:
        return f"the credentials are those of account {account}, not of {expected.account}"
    if seen.account != expected.account:
        return f"it belongs to account {seen.account}, not to {expected.account}"
    if seen.region != expected.region:
        return f"it is in {seen.region}, not in {expected.region}"
    marker = seen.tags.get(MARKER)
    if marker is None:
        return f"it does not carry the tag {MARKER}"
    if marker != expected.pool:
        return f"its tag {MARKER} says {marker}, not {expected.pool}"
    refused = {tag.casefold() for tag in (*PRODUCTION_TAGS, *expected.production)}
    for key, value in seen.tags.items():
        if f"{key.strip()}={value.strip()}".casefold() in refused:
            return f"its tag {key} says {value}"
    return None
