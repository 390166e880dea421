"""EBS volumes by boto3: looked at and enlarged, the one thing of EC2 that is ever modified, by a right of its own."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobs.adapters.ec2 import CONNECT_SECONDS, READ_SECONDS, TRIES, CallRefused, code_of, refuse
from jobs.cloud import MARKER, CloudRefused

ALLOWED = frozenset({"DescribeVolumes", "ModifyVolume"})
# EC2 lets a volume be modified again only some hours after the last time.
_TOO_SOON = {"VolumeModificationRateExceeded", "IncorrectModificationState"}


class TooSoon(CloudRefused):
    """The volume was modified a while ago, and EC2 lets it rest for some hours."""


class Ec2Volumes:
    """The volumes of machines in one region. Every method raises CloudUnavailable or CloudRefused."""

    def __init__(self, region: str) -> None:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
        )
        self._client: Any = boto3.session.Session().client("ec2", region_name=region, config=config)

        def guard(model: Any, **_: Any) -> None:
            if model.name not in ALLOWED:
                raise CallRefused(f"Seatrial does not call {model.name}.")

        self._client.meta.events.register_first("before-call.ec2", guard)

    def grow(self, volume: str, *, pool: str, size: int, dry_run: bool = False) -> None:
        """Enlarge a volume that carries the pool's marker to `size` GiB, never make it smaller. Raises TooSoon."""
        try:
            [told] = self._client.describe_volumes(VolumeIds=[volume])["Volumes"]
        except (ClientError, BotoCoreError) as error:
            refuse("DescribeVolumes", error)
        marker = {tag["Key"]: tag["Value"] for tag in told.get("Tags", ())}.get(MARKER)
        if marker != pool:
            raise CloudRefused(f"Volume {volume} does not carry the tag {MARKER} = {pool}.")
        if told["Size"] >= size and not dry_run:
            return
        try:
            self._client.modify_volume(VolumeId=volume, Size=size, DryRun=dry_run)
        except (ClientError, BotoCoreError) as error:
            if dry_run and code_of(error) == "DryRunOperation":
                return
            if code_of(error) in _TOO_SOON:
                raise TooSoon from error
            refuse("ModifyVolume", error)
