"""What the IAM documents allow, action by action and tag by tag."""

from __future__ import annotations

import itertools

import pytest
from iam_policies import OPERATORS, POLICIES, VALUES, allowed, policy

from jobs.cloud import ALLOWED, MARKER, PRODUCTION_TAGS

INSTANCE = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0"
VOLUME = "arn:aws:ec2:eu-central-1:123456789012:volume/vol-0123456789abcdef0"
DATABASE = "arn:aws:rds:eu-central-1:123456789012:db:main"
GROUP = "arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:1:autoScalingGroupName/main"
ELSEWHERE = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
TEMPLATE = f"arn:aws:ec2:eu-central-1:123456789012:launch-template/{VALUES['LaunchTemplate']}"
OURS = {MARKER: "trial"}

CONTROLLER = [policy("controller")]
GROWING = [policy("controller"), policy("grow-pool")]
WORKER = [policy("worker")]
GROWING_WORKER = [policy("worker"), policy("grow-volume")]
ALL = {"controller": CONTROLLER, "growing controller": GROWING, "worker": WORKER, "growing worker": GROWING_WORKER}

DESTRUCTIVE = [
    ("ec2:TerminateInstances", INSTANCE),
    ("ec2:DeleteVolume", VOLUME),
    ("ec2:DeleteTags", INSTANCE),
    ("ec2:DeleteLaunchTemplate", TEMPLATE),
    ("ec2:ModifyInstanceAttribute", INSTANCE),
    ("ec2:ModifyInstanceMetadataOptions", INSTANCE),
    ("ec2:ModifySnapshotAttribute", "arn:aws:ec2:eu-central-1::snapshot/snap-1"),
    ("ec2:RebootInstances", INSTANCE),
    ("ec2:CreateTags", INSTANCE),
    ("rds:DeleteDBInstance", DATABASE),
    ("rds:DeleteDBCluster", DATABASE),
    ("rds:ModifyDBInstance", DATABASE),
    ("rds:StopDBInstance", DATABASE),
    ("rds:StartDBInstance", DATABASE),
    ("rds:RebootDBInstance", DATABASE),
    ("autoscaling:DeleteAutoScalingGroup", GROUP),
    ("autoscaling:TerminateInstanceInAutoScalingGroup", GROUP),
    ("autoscaling:SetDesiredCapacity", GROUP),
    ("autoscaling:UpdateAutoScalingGroup", GROUP),
]
STARTS_AND_STOPS = ["ec2:StartInstances", "ec2:StopInstances"]
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize("who", ALL)
@pytest.mark.parametrize(("action", "resource"), DESTRUCTIVE)
@pytest.mark.parametrize("tags", [{}, OURS, {MARKER: "other"}, OURS | {"environment": "production"}])
def test_nothing_destructive_is_allowed_even_beside_an_administrators_policy(
    who: str, action: str, resource: str, tags: dict[str, str]
) -> None:
    assert not allowed(ALL[who], action, resource, tags=tags)
    assert not allowed([*ALL[who], EVERYTHING], action, resource, tags=tags)


@pytest.mark.parametrize("action", STARTS_AND_STOPS)
def test_the_controller_starts_and_stops_marked_machines_of_its_pool(action: str) -> None:
    assert allowed(CONTROLLER, action, INSTANCE, tags=OURS)
    assert allowed(CONTROLLER, action, INSTANCE, tags=OURS | {"environment": "test", "Name": "trial 1"})


@pytest.mark.parametrize("action", STARTS_AND_STOPS)
@pytest.mark.parametrize("tags", [{}, {MARKER: "other"}, {MARKER: "Trial"}, {"pool": "trial"}])
def test_the_controller_leaves_all_others_alone(action: str, tags: dict[str, str]) -> None:
    assert not allowed(CONTROLLER, action, INSTANCE, tags=tags)
    assert not allowed(CONTROLLER, action, ELSEWHERE, tags=OURS)


def test_a_machine_without_the_marker_is_denied_whatever_else_the_role_has() -> None:
    for action in STARTS_AND_STOPS:
        assert not allowed([*CONTROLLER, EVERYTHING], action, INSTANCE, tags={})


def test_two_pools_policies_on_one_role_do_not_shut_each_other_out() -> None:
    both = [policy("controller"), policy("controller", VALUES | {"Pool": "second"})]
    for action, pool in itertools.product(STARTS_AND_STOPS, ("trial", "second")):
        assert allowed(both, action, INSTANCE, tags={MARKER: pool})
    assert not allowed(both, "ec2:StopInstances", INSTANCE, tags={MARKER: "third"})


@pytest.mark.parametrize("action", STARTS_AND_STOPS)
@pytest.mark.parametrize(("key", "value"), [tag.split("=", 1) for tag in PRODUCTION_TAGS])
def test_production_is_denied_by_each_tag_that_the_server_refuses(action: str, key: str, value: str) -> None:
    for name, said in itertools.product((key, key.capitalize(), key.upper()), (value, value.capitalize())):
        assert not allowed([*CONTROLLER, EVERYTHING], action, INSTANCE, tags=OURS | {name: said})


def test_the_controller_may_make_each_call_that_the_server_makes() -> None:
    looks = {f"{service}:{name}" for service, names in ALLOWED.items() for name in names}
    looks -= {*STARTS_AND_STOPS, "ec2:RunInstances", "sts:GetCallerIdentity"}  # the last one needs no right
    assert all(allowed(CONTROLLER, action, "*") for action in looks)


RUN = {
    "ec2:LaunchTemplate": TEMPLATE,
    f"aws:RequestTag/{MARKER}": "trial",
    "ec2:MetadataHttpTokens": "required",
}


def test_a_pool_grows_only_where_it_was_allowed() -> None:
    assert not allowed(CONTROLLER, "ec2:RunInstances", INSTANCE, keys=RUN)
    assert allowed(GROWING, "ec2:RunInstances", INSTANCE, keys=RUN)
    for resource in (TEMPLATE, VOLUME, "arn:aws:ec2:eu-central-1::image/ami-1"):
        assert allowed(GROWING, "ec2:RunInstances", resource, keys={"ec2:LaunchTemplate": TEMPLATE})


@pytest.mark.parametrize(
    "change",
    [
        {"ec2:LaunchTemplate": TEMPLATE.replace("lt-0", "lt-1")},
        {"ec2:LaunchTemplate": ""},
        {f"aws:RequestTag/{MARKER}": "other"},
        {"ec2:MetadataHttpTokens": "optional"},
    ],
)
def test_a_pool_grows_by_marked_machines_of_its_template_alone(change: dict[str, str]) -> None:
    keys = {key: value for key, value in (RUN | change).items() if value}
    assert not allowed(GROWING, "ec2:RunInstances", INSTANCE, keys=keys)


def test_only_what_is_being_made_is_marked() -> None:
    keys = {f"aws:RequestTag/{MARKER}": "trial", "ec2:CreateAction": "RunInstances"}
    assert allowed(GROWING, "ec2:CreateTags", INSTANCE, keys=keys)
    assert not allowed(GROWING, "ec2:CreateTags", INSTANCE, keys=keys | {f"aws:RequestTag/{MARKER}": "other"})
    assert not allowed([*GROWING, EVERYTHING], "ec2:CreateTags", INSTANCE, keys={f"aws:RequestTag/{MARKER}": "trial"})


def test_only_the_workers_role_is_given_and_only_to_a_machine() -> None:
    role = "arn:aws:iam::123456789012:role/"
    ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert allowed(GROWING, "iam:PassRole", f"{role}seatrial-worker", keys=ec2)
    assert not allowed(GROWING, "iam:PassRole", f"{role}admin", keys=ec2)
    assert not allowed(
        GROWING, "iam:PassRole", f"{role}seatrial-worker", keys={"iam:PassedToService": "lambda.amazonaws.com"}
    )


def test_a_worker_stops_and_starts_nothing() -> None:
    for who, action in itertools.product((WORKER, GROWING_WORKER), [*STARTS_AND_STOPS, "ec2:RunInstances"]):
        assert not allowed([*who, EVERYTHING], action, INSTANCE, tags=OURS, keys=RUN)


def test_a_worker_knows_what_a_shutdown_does_and_keeps_outputs() -> None:
    assert allowed(WORKER, "ec2:DescribeInstanceAttribute", INSTANCE)
    assert allowed(WORKER, "s3:PutObject", "arn:aws:s3:::team-seatrial/trial/1")
    assert allowed(WORKER, "s3:ListBucket", "arn:aws:s3:::team-seatrial")
    assert not allowed(WORKER, "s3:GetObject", "arn:aws:s3:::others/1")


def test_a_worker_reads_the_secrets_of_its_pool_alone() -> None:
    secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:seatrial/{}/settings-AbCdEf"
    assert allowed(WORKER, "secretsmanager:GetSecretValue", secret.format("trial"))
    assert not allowed(WORKER, "secretsmanager:GetSecretValue", secret.format("other"))
    assert not allowed(WORKER, "secretsmanager:PutSecretValue", secret.format("trial"))


def test_a_volume_grows_only_where_it_was_allowed_and_only_a_marked_one() -> None:
    assert not allowed(WORKER, "ec2:ModifyVolume", VOLUME, tags=OURS)
    assert allowed(GROWING_WORKER, "ec2:ModifyVolume", VOLUME, tags=OURS)
    for tags in ({}, {MARKER: "other"}):
        assert not allowed(GROWING_WORKER, "ec2:ModifyVolume", VOLUME, tags=tags)
    assert not allowed([*GROWING_WORKER, EVERYTHING], "ec2:ModifyVolume", VOLUME, tags={})
    assert not allowed([*CONTROLLER, EVERYTHING], "ec2:ModifyVolume", VOLUME, tags=OURS)


def test_no_document_allows_by_a_pattern_or_to_everybody() -> None:
    for path in POLICIES.glob("*.json"):
        for statement in policy(path.stem)["Statement"]:
            if statement["Effect"] == "Allow":
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                assert not any("*" in action for action in actions), (path.name, actions)
                looks = all(":Describe" in action or ":Get" in action for action in actions)
                assert statement["Resource"] != "*" or looks, (path.name, actions)


def test_the_evaluator_refuses_what_it_does_not_know() -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "::"}}}
    assert "IpAddress" not in OPERATORS
    with pytest.raises(AssertionError, match="IpAddress"):
        allowed([{"Statement": [statement]}], "ec2:StopInstances", INSTANCE)
