"""What every cloud must do: EC2 by boto3 against a moto server over HTTP, and the twin in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fixtures_ec2 import ACCOUNT, FORBIDDEN, REGION, Road, Yard
from fixtures_s3 import S3Server

from jobs.adapters.ec2 import CallRefused, Ec2
from jobs.adapters.ec2_memory import MemoryCloud
from jobs.cloud import (
    ALLOWED,
    MARKER,
    Cloud,
    CloudAway,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    Launch,
    NoCapacity,
    NoSuchMachine,
    TooLate,
    WrongState,
    uptime,
)
from jobs.machines import MachineState as M

NOWHERE = "i-0123456789abcdef0"


@dataclass
class Place:
    """A cloud, and hands to have machines there."""

    cloud: Cloud
    pool: str
    machine: Callable[..., str]
    template: Callable[[str, str], str]
    settle: Callable[[], None]


@pytest.fixture(params=["memory", "moto"])
def place(request: pytest.FixtureRequest) -> Place:
    pool = f"p{secrets.token_hex(4)}"
    if request.param == "memory":
        twin = MemoryCloud(REGION, ACCOUNT)

        def machine(pool: str | None, *, state: str = "stopped", kind: str = "m6i.large", **tags: str) -> str:
            instance = f"i-{secrets.token_hex(8)}"
            twin.add(instance, pool, M(state), tags=tags, kind=kind)
            return instance

        def template(name: str, kind: str) -> str:
            twin.templates[name] = kind
            return name

        return Place(twin, pool, machine, template, twin.settle)
    request.getfixturevalue("road")
    yard: Yard = request.getfixturevalue("yard")
    return Place(Ec2(REGION), pool, yard.machine, yard.template, lambda: None)


def soon() -> float:
    return uptime() + 10


def test_a_pool_is_what_carries_its_marker_and_what_is_named(place: Place) -> None:
    ours = [place.machine(place.pool), place.machine(place.pool, state="running", kind="m6i.xlarge")]
    named, other = place.machine(None, stage="test"), place.machine("another")
    found = place.cloud.machines(place.pool, (named, NOWHERE))
    assert {seen.instance for seen in found} == {*ours, named}
    assert [seen.instance for seen in found] == sorted(seen.instance for seen in found)
    by_id = {seen.instance: seen for seen in found}
    assert by_id[ours[0]].state is M.STOPPED
    assert by_id[ours[1]].state is M.RUNNING
    assert by_id[ours[1]].kind == "m6i.xlarge"
    assert by_id[ours[1]].launched_at is not None
    assert by_id[ours[0]].tags[MARKER] == place.pool
    assert by_id[named].tags == {"stage": "test"}
    assert {seen.account for seen in found} == {ACCOUNT} == {place.cloud.account()}
    assert {seen.region for seen in found} == {REGION}
    assert [seen.tags[MARKER] for seen in place.cloud.machines(place.pool, (other,)) if seen.instance == other] == [
        "another"
    ]


def test_a_machine_is_started_and_stopped_and_both_may_be_asked_twice(place: Place) -> None:
    one = place.machine(place.pool)

    def state() -> M:
        return place.cloud.machines(place.pool)[0].state

    assert place.cloud.start(one, until=soon()) is M.PENDING
    place.settle()
    assert state() is M.RUNNING
    place.cloud.start(one, until=soon())
    assert state() is M.RUNNING
    assert place.cloud.stop(one, until=soon()) is M.STOPPING
    place.settle()
    assert state() is M.STOPPED
    place.cloud.stop(one, until=soon())
    assert state() is M.STOPPED


def test_a_dry_run_changes_nothing_and_knows_what_is_there(place: Place) -> None:
    one = place.machine(place.pool, state="running")
    template = place.template(f"t-{place.pool}", "m6i.large")
    place.cloud.may_stop(one)
    place.cloud.may_start(one)
    place.cloud.may_launch(Launch(template, place.pool, secrets.token_hex(8)))
    assert [(seen.instance, seen.state) for seen in place.cloud.machines(place.pool)] == [(one, M.RUNNING)]


def test_what_is_not_there_is_refused_by_its_name(place: Place) -> None:
    for call in (place.cloud.start, place.cloud.stop):
        with pytest.raises(NoSuchMachine):
            call(NOWHERE, until=soon())
    with pytest.raises(CloudRefused):
        place.cloud.launch(Launch("none-such", place.pool, secrets.token_hex(8)), until=soon())
    with pytest.raises(NoSuchMachine):
        place.cloud.on_shutdown(NOWHERE)


def test_nothing_is_sent_after_its_time(place: Place) -> None:
    one = place.machine(place.pool, state="running")
    for call in (place.cloud.start, place.cloud.stop):
        with pytest.raises(TooLate):
            call(one, until=uptime() - 0.001)
    with pytest.raises(TooLate):
        place.cloud.launch(Launch("t", place.pool, "token"), until=uptime() - 0.001)
    assert place.cloud.machines(place.pool)[0].state is M.RUNNING


def test_a_launch_carries_the_marker_and_its_token_makes_one_machine(place: Place) -> None:
    template = place.template(f"t-{place.pool}", "m6i.large")
    launch = Launch(template, place.pool, secrets.token_hex(8), kind="c6i.large")
    first, again = (place.cloud.launch(launch, until=soon()) for _ in range(2))
    assert first.instance == again.instance
    assert first.account == ACCOUNT
    [seen] = place.cloud.machines(place.pool)
    assert (seen.instance, seen.kind, seen.tags[MARKER]) == (first.instance, "c6i.large", place.pool)
    assert place.cloud.on_shutdown(first.instance) == "stop"
    assert place.cloud.load(first.instance, 600) is None


# ---- EC2 alone ----


@pytest.fixture
def ec2(road: Road) -> Ec2:
    return Ec2(REGION)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((503, "RequestLimitExceeded"), CloudThrottled),
        ((400, "Throttling"), CloudThrottled),
        ((500, "InternalError"), CloudUnavailable),
        ((503, "Unavailable"), CloudUnavailable),
        ((0, ""), CloudUnavailable),
        ((500, "InsufficientInstanceCapacity"), NoCapacity),
        ((400, "VcpuLimitExceeded"), NoCapacity),
        ((400, "IncorrectInstanceState"), WrongState),
        ((403, "UnauthorizedOperation"), CloudRefused),
        ((401, "AuthFailure"), CloudRefused),
    ],
)
def test_what_changes_something_is_sent_once_and_its_failure_is_told_apart(
    ec2: Ec2, road: Road, yard: Yard, answer: tuple[int, str], error: type[Exception]
) -> None:
    one = yard.machine("told-apart", state="running")
    road.rule = lambda call: answer if call.action in ("StopInstances", "StartInstances") else None
    with pytest.raises(error) as told:
        ec2.stop(one, until=soon())
    assert type(told.value) is error
    assert len(road.done("StopInstances")) == 1
    with pytest.raises(error):
        ec2.may_stop(one)
    assert yard.state(one) == "running"


def test_looking_is_tried_again_and_read_page_by_page(
    ec2: Ec2, road: Road, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.adapters.ec2.PAGE", 5)
    pool = f"p{secrets.token_hex(4)}"
    made = {yard.machine(pool) for _ in range(7)}
    road.rule = lambda call: (503, "RequestLimitExceeded") if len(road.done("DescribeInstances")) < 3 else None
    assert {seen.instance for seen in ec2.machines(pool)} == made
    assert len(road.done("DescribeInstances")) == 2 + 2
    road.rule = lambda call: (500, "InternalError")
    with pytest.raises(CloudUnavailable):
        ec2.machines(pool)


def test_a_cloud_that_cannot_be_reached_has_done_nothing(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Road(s3_server.port)
    for name, value in one.environment.items():
        monkeypatch.setenv(name, value)
    one.close()
    with pytest.raises(CloudAway):
        Ec2(REGION).stop(NOWHERE, until=soon())


def test_credentials_that_are_not_there_are_told_when_they_are_needed(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none-such")
    one = Ec2(REGION)
    with pytest.raises(CloudUnavailable, match="none-such"):
        one.machines("any")
    assert road.calls == []


@pytest.mark.parametrize("call", ["terminate_instances", "modify_instance_attribute", "delete_volume"])
def test_c8_a_call_that_is_not_on_the_list_never_leaves(ec2: Ec2, road: Road, call: str) -> None:
    words = {
        "terminate_instances": {"InstanceIds": [NOWHERE]},
        "modify_instance_attribute": {"InstanceId": NOWHERE, "EbsOptimized": {"Value": True}},
        "delete_volume": {"VolumeId": "vol-0123456789abcdef0"},
    }
    for client in (ec2._doing, ec2._looking):
        with pytest.raises(CallRefused):
            getattr(client, call)(**words[call])
    assert road.calls == []


def test_the_list_names_no_call_that_ends_or_changes_anything() -> None:
    assert not [name for names in ALLOWED.values() for name in names if name.startswith(FORBIDDEN)]
