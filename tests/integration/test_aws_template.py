"""The CloudFormation template: clean, made of the tested policies, and deployed to an AWS of the tests' own."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint import decode
from cfnlint.api import ManualArgs, lint_by_config
from fixtures_s3 import S3Server
from iam_policies import POLICIES, VALUES, policy, resolved

from jobs.cloud import MARKER

AWS = POLICIES.parent
TEMPLATE = AWS / "pool.yml"
REGIONS = ["eu-central-1", "us-east-1"]
POLICY_OF = {
    "WorkerPolicy": "worker",
    "GrowVolumePolicy": "grow-volume",
    "ControllerPolicy": "controller",
    "GrowPoolPolicy": "grow-pool",
}


def template() -> dict[str, Any]:
    loaded, problems = decode.decode(str(TEMPLATE))
    assert not problems
    return dict(loaded)


def plain(value: Any) -> Any:
    """Put in the values that the policies are tested with."""
    if isinstance(value, dict):
        if value.keys() == {"Fn::Sub"}:
            return resolved(value["Fn::Sub"])
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def test_cfn_lint_finds_nothing() -> None:
    found = lint_by_config(ManualArgs(templates=[str(TEMPLATE)], regions=REGIONS))
    assert [f"{match.linenumber}: {match.rule.id} {match.message}" for match in found] == []


def test_the_policies_of_the_template_are_the_tested_ones() -> None:
    resources = template()["Resources"]
    managed = {name for name, one in resources.items() if one["Type"] == "AWS::IAM::ManagedPolicy"}
    assert managed == POLICY_OF.keys()
    assert {path.stem for path in POLICIES.glob("*.json")} == set(POLICY_OF.values())
    for name, document in POLICY_OF.items():
        assert plain(resources[name]["Properties"]["PolicyDocument"]) == policy(document), name


def test_no_resource_of_the_stack_is_a_machine() -> None:
    kinds = {one["Type"] for one in template()["Resources"].values()}
    assert not kinds & {"AWS::EC2::Instance", "AWS::EC2::Volume", "AWS::AutoScaling::AutoScalingGroup"}


def test_few_ways_lead_out_of_a_machine() -> None:
    group = template()["Resources"]["WorkerSecurityGroup"]["Properties"]
    assert {rule["FromPort"] for rule in group["SecurityGroupEgress"]} == {22, 80, 443, 5432, 6379}
    assert all(
        rule["FromPort"] == rule["ToPort"] and rule["IpProtocol"] == "tcp" for rule in group["SecurityGroupEgress"]
    )
    assert "SecurityGroupIngress" not in group


@pytest.fixture(scope="module")
def aws(s3_server: S3Server) -> Any:
    """Open clients of an AWS of the tests' own, by service: `aws("ec2")`."""
    session = boto3.session.Session(
        aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1"
    )
    return partial(session.client, endpoint_url=s3_server.url)


@pytest.fixture(scope="module")
def stack(aws: Any) -> dict[str, str]:
    """Deploy the template with all that it can make; gives what it was given, and its outputs."""
    ec2, cloud = aws("ec2"), aws("cloudformation")
    pool = f"trial-{secrets.token_hex(3)}"
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.8.1.0/24")["Subnet"]["SubnetId"]
    routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    aws("ssm").put_parameter(Name=f"/images/{pool}", Value=image, Type="String")
    role = aws("iam").create_role(RoleName=f"server-{pool}", AssumeRolePolicyDocument="{}")["Role"]["RoleName"]
    given = {
        "Pool": pool, "VpcId": vpc, "VpcCidr": "10.8.0.0/16", "SubnetIds": subnet, "RouteTableIds": routes,
        "ImageId": f"/images/{pool}", "Repository": "https://git.example.com/seatrial.git", "Bucket": "team-seatrial",
        "ControllerRole": role, "GrowPool": "yes", "GrowVolumes": "yes",
    }  # fmt: skip
    cloud.create_stack(
        StackName=pool,
        TemplateBody=TEMPLATE.read_text("utf-8"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    [made] = cloud.describe_stacks(StackName=pool)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return given | {one["OutputKey"]: one["OutputValue"] for one in made["Outputs"]}


def test_a_machine_of_the_deployed_template_is_as_it_has_to_be(aws: Any, stack: dict[str, str]) -> None:
    ec2 = aws("ec2")
    [made] = ec2.run_instances(LaunchTemplate={"LaunchTemplateId": stack["LaunchTemplateId"]}, MinCount=1, MaxCount=1)[
        "Instances"
    ]
    instance = made["InstanceId"]
    [found] = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]}[MARKER] == stack["Pool"]
    assert found["InstanceType"] == "m7i.xlarge"

    [version] = ec2.describe_launch_template_versions(LaunchTemplateId=stack["LaunchTemplateId"])[
        "LaunchTemplateVersions"
    ]
    data = version["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"
    assert data["DisableApiTermination"] is True
    assert data["NetworkInterfaces"][0]["Groups"] == [stack["WorkerSecurityGroupId"]]
    assert all(disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"])
    script = base64.b64decode(data["UserData"]).decode()
    assert f"--pool '{stack['Pool']}' --region 'us-east-1'" in script
    assert f"--secret 'seatrial/{stack['Pool']}/settings'" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_the_deployed_policies_are_attached_where_they_belong(aws: Any, stack: dict[str, str]) -> None:
    iam = aws("iam")

    def documents(role: str) -> list[dict[str, Any]]:
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        ours = [one["PolicyArn"] for one in attached if ":aws:policy/" not in one["PolicyArn"]]
        return [
            iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] for arn in sorted(ours)
        ]

    [worker] = [role["RoleName"] for role in iam.list_roles()["Roles"] if role["Arn"] == stack["WorkerRoleArn"]]
    account = stack["WorkerRoleArn"].split(":")[4]
    values = VALUES | {
        "AWS::Region": "us-east-1", "AWS::AccountId": account, "Pool": stack["Pool"], "WorkerRole": worker,
        "LaunchTemplate": stack["LaunchTemplateId"],
    }  # fmt: skip

    def by_text(found: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in found)

    assert by_text(documents(worker)) == by_text([policy("worker", values), policy("grow-volume", values)])
    assert by_text(documents(stack["ControllerRole"])) == by_text(
        [policy("controller", values), policy("grow-pool", values)]
    )


def test_only_the_network_itself_reaches_the_endpoints_and_nobody_a_machine(aws: Any, stack: dict[str, str]) -> None:
    ec2 = aws("ec2")
    [worker] = ec2.describe_security_groups(GroupIds=[stack["WorkerSecurityGroupId"]])["SecurityGroups"]
    assert worker["IpPermissions"] == []
    endpoints = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [stack["VpcId"]]}])["VpcEndpoints"]
    names = {one["ServiceName"].rpartition(".")[2] for one in endpoints}
    assert names == {"s3", "ec2", "sts", "secretsmanager", "ssm", "ssmmessages"}


# ---- what a machine does at its boot -------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(AWS.glob("*.sh")), ids=lambda path: path.name)
def test_each_script_is_one_for_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_a_script_without_what_it_needs_says_so() -> None:
    ended = subprocess.run([AWS / "worker-setup.sh", "--pool", "trial"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "--secret are needed" in ended.stderr


def fetched(directory: Path, secret: str, url: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "SETTINGS_SECRET": secret, "SETTINGS_DIRECTORY": str(directory), "SETTINGS_PYTHON": sys.executable,
    }  # fmt: skip
    return subprocess.run([AWS / "settings.sh"], capture_output=True, text=True, env=environment)


def test_the_settings_of_a_machine_come_from_its_secret(aws: Any, s3_server: S3Server, tmp_path: Path) -> None:
    secret = f"seatrial/{secrets.token_hex(3)}/settings"
    files = {"seatrial.toml": "[server]\n", "verification.dsn": "postgresql://canary@db/verification"}
    aws("secretsmanager").create_secret(Name=secret, SecretString=json.dumps(files))
    ended = fetched(tmp_path, secret, s3_server.url)
    assert ended.returncode == 0, ended.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in tmp_path.iterdir())
    assert "canary" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("content", [{"../passwd": "x"}, {".hidden": "x"}, {"seatrial.toml": 1}])
def test_a_secret_that_is_no_set_of_files_is_refused(
    aws: Any, s3_server: S3Server, tmp_path: Path, content: dict[str, Any]
) -> None:
    secret = f"seatrial/{secrets.token_hex(3)}/settings"
    aws("secretsmanager").create_secret(Name=secret, SecretString=json.dumps(content))
    ended = fetched(tmp_path, secret, s3_server.url)
    assert ended.returncode == 1
    assert "no name of a file" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unit", sorted(AWS.glob("*.service")), ids=lambda path: path.name)
def test_each_unit_is_installed_and_waits_for_its_settings(unit: Path) -> None:
    text = unit.read_text("utf-8")
    assert unit.name in (AWS / "worker-setup.sh").read_text("utf-8")
    assert re.search(r"^ExecStart=/opt/seatrial/", text, re.MULTILINE)
    assert unit.stem == "seatrial-settings" or "Requires=seatrial-settings.service" in text
