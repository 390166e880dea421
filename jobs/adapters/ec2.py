"""EC2 by boto3: machines told of, started, stopped and launched. No call that terminates, deletes or modifies is let out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NoReturn

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from jobs.cloud import (
    ALLOWED,
    MARKER,
    CloudAway,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    Launch,
    NoCapacity,
    NoSuchMachine,
    Seen,
    TooLate,
    WrongState,
    uptime,
)
from jobs.machines import MachineState

CONNECT_SECONDS = 3
READ_SECONDS = 10
TRIES = 3
PAGE = 500
_IDS_AT_ONCE = 200  # as many as a filter takes

_THROTTLED = {
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "EC2ThrottledException",
    "TooManyRequestsException",
    "RequestThrottled",
    "SlowDown",
}
_NO_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientCapacity",
    "InstanceLimitExceeded",
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "Unsupported",
}
_UNKNOWN = {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceID"}
_WRONG_STATE = {"IncorrectInstanceState", "IncorrectState", "IncorrectSpotRequestState"}
_STATES = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "shutting-down": MachineState.GONE,
    "terminated": MachineState.GONE,
}
# "User initiated (2026-11-22 10:01:02 GMT)"
_INITIATED = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


@functools.cache
def _loader() -> Any:
    """Read what boto3 knows of EC2 once: that takes longer than all calls of a minute."""
    return botocore.session.get_session().get_component("data_loader")


class CallRefused(CloudRefused):
    """Seatrial does not make this call."""

    code = "call_refused"


class Ec2:
    """One account in one region, by the credentials that every AWS client finds; one for each thread."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._until: float | None = None  # of the call in hand
        self._account: str | None = None

    @cached_property
    def _session(self) -> Any:
        session = botocore.session.get_session()
        session.register_component("data_loader", _loader())
        return session

    # What only looks is asked again by botocore; what changes something is sent once, and asked for again by who has
    # looked at the machine meanwhile.

    @cached_property
    def _looking(self) -> Any:
        return self._open("ec2", TRIES)

    @cached_property
    def _doing(self) -> Any:
        return self._open("ec2", 1)

    def _open(self, service: str, tries: int) -> Any:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": tries},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            tcp_keepalive=True,
        )
        session = boto3.session.Session(botocore_session=self._session)
        client = session.client(service, region_name=self.region, config=config)
        allowed = ALLOWED[service]

        def guard(model: Any, **_: Any) -> None:
            if model.name not in allowed:
                raise CallRefused(f"Seatrial does not call {model.name}.")

        def last_look(event_name: str, **_: Any) -> None:
            if self._until is not None and uptime() > self._until:
                raise TooLate(f"{event_name.rpartition('.')[2]} was held up and is not sent any more.")

        client.meta.events.register_first(f"before-call.{service}", guard)
        client.meta.events.register_last(f"before-send.{service}", last_look)
        return client

    # ---- looking --------------------------------------------------------------------------------------------

    def account(self) -> str:
        """Give the account whose credentials these are; asked for once."""
        if self._account is None:
            with _translated("GetCallerIdentity"):
                self._account = str(self._open("sts", TRIES).get_caller_identity()["Account"])
        return self._account

    def machines(self, pool: str, instances: Sequence[str] = ()) -> list[Seen]:
        """List those that carry the pool's marker, and those with these ids whatever they carry, by their ids."""
        found = {seen.instance: seen for seen in self._described(f"tag:{MARKER}", [pool])}
        wanted = [instance for instance in dict.fromkeys(instances) if instance not in found]
        for first in range(0, len(wanted), _IDS_AT_ONCE):
            some = self._described("instance-id", wanted[first : first + _IDS_AT_ONCE])
            found.update((seen.instance, seen) for seen in some)
        return [found[instance] for instance in sorted(found)]

    def _described(self, name: str, values: list[str]) -> Iterator[Seen]:
        with _translated("DescribeInstances"):
            pages = self._looking.get_paginator("describe_instances")
            for page in pages.paginate(Filters=[{"Name": name, "Values": values}], PaginationConfig={"PageSize": PAGE}):
                for reservation in page["Reservations"]:
                    for told in reservation["Instances"]:
                        yield _seen(told, reservation["OwnerId"], self.region)

    def on_shutdown(self, instance: str) -> str:
        """Tell what becomes of a machine that shuts itself down: `stop` or `terminate`."""
        with _translated("DescribeInstanceAttribute"):
            answer = self._looking.describe_instance_attribute(
                InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior"
            )
        return str(answer["InstanceInitiatedShutdownBehavior"]["Value"])

    def load(self, instance: str, seconds: float) -> float | None:
        """Give the highest use of its processors lately, in percent; None where nothing was measured."""
        now = datetime.now(UTC)
        with _translated("GetMetricStatistics"):
            answer = self._open("cloudwatch", TRIES).get_metric_statistics(
                Namespace="AWS/EC2",
                MetricName="CPUUtilization",
                Dimensions=[{"Name": "InstanceId", "Value": instance}],
                StartTime=now - timedelta(seconds=max(seconds, 600.0)),  # without detailed monitoring: every 5 minutes
                EndTime=now,
                Period=300,
                Statistics=["Maximum"],
            )
        return max((float(point["Maximum"]) for point in answer["Datapoints"]), default=None)

    # ---- trying ---------------------------------------------------------------------------------------------

    def may_start(self, instance: str) -> None:
        """Raise CloudRefused if a start would be refused; nothing is started."""
        self._try("StartInstances", lambda: self._doing.start_instances(InstanceIds=[instance], DryRun=True))

    def may_stop(self, instance: str) -> None:
        """Raise CloudRefused if a stop would be refused; nothing is stopped."""
        self._try("StopInstances", lambda: self._doing.stop_instances(InstanceIds=[instance], DryRun=True))

    def may_launch(self, launch: Launch) -> None:
        """Raise CloudRefused if a launch would be refused; nothing is launched."""
        self._try("RunInstances", lambda: self._doing.run_instances(**_wording(launch), DryRun=True))

    def _try(self, name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except ClientError as error:
            if code_of(error) == "DryRunOperation":
                return
            refuse(name, error)
        except BotoCoreError as error:
            refuse(name, error)
        raise CloudRefused(f"{name} as a dry run was answered as if it were none.")

    # ---- doing ----------------------------------------------------------------------------------------------

    def start(self, instance: str, *, until: float) -> MachineState:
        """Start one machine; gives its state. Raises NoCapacity, NoSuchMachine, WrongState, TooLate."""
        with self._by(until), _translated("StartInstances"):
            [told] = self._doing.start_instances(InstanceIds=[instance])["StartingInstances"]
        return _STATES.get(told["CurrentState"]["Name"], MachineState.UNKNOWN)

    def stop(self, instance: str, *, until: float) -> MachineState:
        """Stop one machine, never terminate it; gives its state. Raises NoSuchMachine, WrongState, TooLate."""
        with self._by(until), _translated("StopInstances"):
            [told] = self._doing.stop_instances(InstanceIds=[instance])["StoppingInstances"]
        return _STATES.get(told["CurrentState"]["Name"], MachineState.UNKNOWN)

    def launch(self, launch: Launch, *, until: float) -> Seen:
        """Make one machine; it carries the pool's marker from its first moment. Raises NoCapacity, TooLate."""
        with self._by(until), _translated("RunInstances"):
            answer = self._doing.run_instances(**_wording(launch))
        [told] = answer["Instances"]
        return _seen(told, answer["OwnerId"], self.region)

    @contextmanager
    def _by(self, until: float) -> Iterator[None]:
        self._until = until
        try:
            yield
        finally:
            self._until = None


def _wording(launch: Launch) -> dict[str, Any]:
    key = "LaunchTemplateId" if launch.template.startswith("lt-") else "LaunchTemplateName"
    words: dict[str, Any] = {
        "LaunchTemplate": {key: launch.template},
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": launch.token,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": MARKER, "Value": launch.pool}]}],
    }
    return words | ({"InstanceType": launch.kind} if launch.kind else {})


def _seen(told: Mapping[str, Any], owner: str, region: str) -> Seen:
    zone = told.get("Placement", {}).get("AvailabilityZone", "")
    stopped = _INITIATED.search(told.get("StateTransitionReason", ""))
    return Seen(
        instance=told["InstanceId"],
        state=_STATES.get(told["State"]["Name"], MachineState.UNKNOWN),
        account=owner,
        # What the machine itself says of where it is; a client of the wrong region would not see it at all.
        region=region if zone.startswith(region) or not zone else zone.rstrip("abcdefgh"),
        kind=told.get("InstanceType", ""),
        tags={tag["Key"]: tag["Value"] for tag in told.get("Tags", ())},
        launched_at=told.get("LaunchTime"),
        stopped_at=datetime.strptime(stopped[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) if stopped else None,
        spot=told.get("InstanceLifecycle") == "spot",
    )


def code_of(error: BaseException | None) -> str:
    """Give the code of an error of AWS, or nothing."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, KeyError, ValueError) as error:
        refuse(name, error)


def refuse(name: str, error: Exception) -> NoReturn:
    """Raise the error of the port for one of the SDK, or for an answer that cannot be understood."""
    code = code_of(error)
    text = " ".join(f"{name}: {error}".split())
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _THROTTLED or status == 429:
            raise CloudThrottled(text) from error
        if code in _NO_CAPACITY:
            raise NoCapacity(text) from error
        if code in _UNKNOWN:
            raise NoSuchMachine(text) from error
        if code in _WRONG_STATE:
            raise WrongState(text) from error
        if 400 <= status < 500:
            raise CloudRefused(text) from error
        raise CloudUnavailable(text) from error
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
        raise CloudAway(text) from error
    raise CloudUnavailable(text) from error
