"""`seatrial doctor --aws` against an EC2 over HTTP: every right is tried, and nothing is done."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures_ec2 import ACCOUNT, IMAGE, REGION, Call, Road, Yard
from fixtures_postgres import free_port

from jobs.cli import main


@pytest.fixture
def pool() -> str:
    return f"trial-{secrets.token_hex(3)}"


def doctor(directory: Path, pool: str, *more: str, account: str = ACCOUNT) -> tuple[int, dict[str, Any]]:
    """Ask the doctor; gives its exit code, and (level, text) of each finding by what it is about."""
    settings = directory / "seatrial.toml"
    words = [f'[server]\nhome = "{directory}"\n[pools.{pool}]\nprovider = "ec2"\nregion = "{REGION}"']
    settings.write_text("\n".join([*words, f'account = "{account}"', *more]) + "\n")
    asked = CliRunner().invoke(main, ["--config", str(settings), "doctor", "--aws", "--json"])
    found = json.loads(asked.stdout)
    return asked.exit_code, {one["what"]: (one["level"], one["text"]) for one in found["findings"]}


def test_machines_that_may_be_started_and_stopped_are_healthy(
    tmp_path: Path, pool: str, yard: Yard, road: Road
) -> None:
    one, other = yard.machine(pool), yard.machine(pool, state="running")
    code, found = doctor(tmp_path, pool)
    assert code == 0, found
    assert found[f"pool {pool}"] == ("ok", f"2 machines in {REGION}, account {ACCOUNT}")
    assert found[f"pool {pool}, {one}"] == ("ok", "stopped; starting and stopping it is allowed")
    assert found[f"pool {pool}, {other}"] == ("ok", "running; starting and stopping it is allowed")
    assert (yard.state(one), yard.state(other)) == ("stopped", "running")
    changing = [call for call in road.calls if call.action.startswith(("Start", "Stop", "Run"))]
    assert changing
    assert all(call.dry for call in changing)
    assert road.forbidden() == []


def test_a_production_machine_is_refused_without_a_single_try(
    tmp_path: Path, pool: str, yard: Yard, road: Road
) -> None:
    production = yard.machine(pool, environment="Production")
    code, found = doctor(tmp_path, pool)
    assert code == 3
    level, text = found[f"pool {pool}, {production}"]
    assert level == "problem"
    assert "left alone: its tag environment says Production" in text
    assert found[f"pool {pool}"][0] == "problem"  # and there is no other one
    assert not [call for call in road.calls if production in call.instances and "Describe" not in call.action]


def test_a_machine_without_the_marker_is_refused(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    foreign = yard.machine(None)
    code, found = doctor(tmp_path, pool, f'instances = ["{foreign}"]')
    assert code == 3
    assert "does not carry the tag seatrial:pool" in found[f"pool {pool}, {foreign}"][1]
    assert not [call for call in road.calls if call.dry]


def test_an_instance_that_ec2_does_not_know_is_named(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    yard.machine(pool)
    code, found = doctor(tmp_path, pool, 'instances = ["i-0aaaaaaaaaaaaaaaa"]')
    assert code == 3
    assert any("EC2 knows no i-0aaaaaaaaaaaaaaaa" in text for _, text in found.values())


def test_another_account_is_a_problem(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    machine = yard.machine(pool)
    code, found = doctor(tmp_path, pool, account="999999999999")
    assert code == 3
    assert found[f"pool {pool}, {machine}"][0] == "problem"
    assert not [call for call in road.calls if call.dry]


def test_a_right_that_is_missing_is_said_with_the_policy_that_gives_it(
    tmp_path: Path, pool: str, yard: Yard, road: Road
) -> None:
    machine = yard.machine(pool)

    def denied(call: Call) -> tuple[int, str] | None:
        return (403, "UnauthorizedOperation") if call.action == "StopInstances" else None

    road.rule = denied
    code, found = doctor(tmp_path, pool)
    assert code == 3
    assert found[f"pool {pool}, {machine}"][0] == "problem"
    assert "StopInstances" in found[f"pool {pool}, {machine}"][1]


def test_what_a_shutdown_would_terminate_is_warned_of(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "seatrial:pool", "Value": pool}]}]
    made = yard.client.run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceInitiatedShutdownBehavior="terminate", TagSpecifications=tags
    )
    machine = made["Instances"][0]["InstanceId"]
    code, found = doctor(tmp_path, pool)
    assert code == 0
    level, text = found[f"pool {pool}, {machine}, dead man"]
    assert level == "warning"
    assert "what a shutdown does is terminate" in text
    assert not any(what.endswith("dead man") for what in doctor(tmp_path, pool, 'dead_man = "never"')[1])


def test_a_template_is_tried_and_nothing_is_made(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    yard.template(f"seatrial-{pool}")
    code, found = doctor(tmp_path, pool, f'launch_template = "seatrial-{pool}"')
    assert code == 0, found
    assert found[f"pool {pool}, growing"] == ("ok", "a launch from the template is allowed")
    road.rule = lambda call: (403, "UnauthorizedOperation") if call.action == "RunInstances" else None
    code, found = doctor(tmp_path, pool, f'launch_template = "seatrial-{pool}"')
    assert code == 3
    assert "RunInstances" in found[f"pool {pool}, growing"][1]


def test_a_pool_without_machines_is_a_problem(tmp_path: Path, pool: str, yard: Yard, road: Road) -> None:
    code, found = doctor(tmp_path, pool)
    assert code == 3
    assert found[f"pool {pool}"] == ("problem", f"no machine of {REGION} can be used")


def test_an_ec2_that_does_not_answer_is_said(
    tmp_path: Path, pool: str, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("EC2", "STS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://127.0.0.1:{free_port()}")
    code, found = doctor(tmp_path, pool)
    assert code == 3
    assert found[f"pool {pool}"][0] == "problem"


def test_without_such_a_pool_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    settings = tmp_path / "seatrial.toml"
    settings.write_text(f'[server]\nhome = "{tmp_path}"\n')
    asked = CliRunner().invoke(main, ["--config", str(settings), "doctor", "--aws"])
    assert asked.exit_code == 0
    assert 'no pool with provider = "ec2"' in asked.stdout
