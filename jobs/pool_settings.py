"""The settings of a pool: machines that are there, or EC2 instances that are started and stopped by the work there is."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from jobs.schedule import Window
from jobs.settings_table import Table
from runner.quantities import QuantityError, parse_size
from runner.spec_fields import DurationBetween

MARKER_TAG = "seatrial:pool"
PRODUCTION_TAGS = ("env=prod", "env=production", "environment=prod", "environment=production", "stage=prod")


@dataclass(frozen=True)
class Spelled:
    """A duration in seconds within bounds; `never` is None, and `at once`, where it is allowed, is 0.

    A bare 0 is refused: it has meant "at once" to some and "never" to others.
    """

    low: str
    high: str
    at_once: bool = False

    def read(self, value: Any) -> float | None:
        if value == "never":
            return None
        if self.at_once and value == "at once":
            return 0.0
        words = "at once, or never" if self.at_once else "or never"
        if value in (0, "0", "0s"):
            choices = "at once, never" if self.at_once else "never"
            raise ValueError(f"is not said clearly: write {choices}, or a duration from {self.low} on")
        try:
            return DurationBetween(self.low, self.high).read(value)
        except ValueError as error:
            raise ValueError(f"{error}, {words}") from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        duration = DurationBetween(self.low, self.high).__get_pydantic_json_schema__(schema, handler)
        words = "^never$|^at once$" if self.at_once else "^never$"
        return duration | {"pattern": f"{words}|{duration['pattern']}"}


def written(seconds: float | None) -> str:
    """Write what Spelled reads."""
    if seconds is None:
        return "never"
    return "at once" if seconds == 0 else f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _matching(pattern: str, message: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(message)
        return text

    return AfterValidator(check)


def _hours(text: str) -> str:
    Window.parse(text)
    return text


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone that this machine knows: UTC, or a name such as Europe/Warsaw") from None
    return text


def _price(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    refused = ValueError("must be an hour's price from 0 to 1,000, with up to 6 decimals: 0.384")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise refused from None
    exponent = price.as_tuple().exponent
    if not price.is_finite() or not 0 <= price <= 1000 or not isinstance(exponent, int) or exponent < -6:
        raise refused
    return price


def _size(text: str) -> str:
    try:
        size = parse_size(text)
    except QuantityError as error:
        raise ValueError(str(error)) from None
    if not 2**30 <= size <= 16 * 2**40:
        raise ValueError("is outside of what is allowed: 1g to 16t")
    return text


def _tag(text: str) -> str:
    if not re.fullmatch(r"[^=\s][^=]{0,127}=[^=]{0,255}", text):
        raise ValueError("must be a tag and its value: environment=production")
    return text


Instance = Annotated[
    str, _matching(r"i-[0-9a-f]{8}(?:[0-9a-f]{9})?", "is not an instance's id, such as i-0abc1234def567890")
]
Kind = Annotated[str, _matching(r"[a-z0-9-]{2,20}\.[a-z0-9-]{2,20}", "is not an instance type, such as m7i.2xlarge")]
Hours = Annotated[str, AfterValidator(_hours)]
Price = Annotated[Decimal, BeforeValidator(_price), WithJsonSchema({"type": ["number", "string"]})]


class PoolSettings(Table):
    """The machines that may do a project's work."""

    provider: Literal["local", "ec2"] = Field(
        "local", description="local: machines that are there; ec2: instances that are started and stopped by the work"
    )
    slots: int = Field(2, ge=1, le=256, description="tasks at once on a machine, 1 to 256 (default 2)")
    region: (
        Annotated[str, _matching(r"[a-z]{2}(-[a-z]+)+-[0-9]", "is not a region's name, such as eu-central-1")] | None
    ) = Field(None, description="of its instances; required")
    account: Annotated[str, _matching(r"[0-9]{12}", "must be the 12 digits of an AWS account, as a text")] | None = (
        Field(None, description="the AWS account of its instances, 12 digits; required")
    )
    instances: tuple[Instance, ...] = Field(
        (), description=f"ids of its instances; others belong to it by the tag {MARKER_TAG} alone"
    )
    min_running: int = Field(
        0, ge=0, le=1_000, description="so many run whatever there is to do, 0 to 1,000 (default 0)"
    )
    max_running: int = Field(1, ge=1, le=1_000, description="so many run at most, 1 to 1,000 (default 1)")
    policy: Literal["fixed", "break_even", "learned"] | None = Field(
        None,
        description="how long an idle machine waits for work: fixed: `idle`; break_even: as long as a boot costs; "
        "learned: by the gaps of the past (default fixed where idle is given, else learned)",
    )
    idle: Annotated[float | None, Spelled("1s", "7d", at_once=True)] = Field(
        60.0,
        description="how long an idle machine waits, 1s to 7d, at once, or never",
        json_schema_extra={"default": "60s"},
    )
    minimum_run: Annotated[float, DurationBetween("0s", "1d")] = Field(
        60.0,
        description="no machine is stopped sooner after its start, 0s to 1d: EC2 bills a minute at least",
        json_schema_extra={"default": "60s"},
    )
    boot: Annotated[float, DurationBetween("1s", "1h")] = Field(
        60.0,
        description="how long a machine takes from its start to its worker, 1s to 1h",
        json_schema_extra={"default": "60s"},
    )
    prewarm: Annotated[float | None, Spelled("1s", "1h")] = Field(
        90.0,
        description="how long an opened new-run form keeps a machine awake, 1s to 1h, or never",
        json_schema_extra={"default": "90s"},
    )
    maximum_run: Annotated[float | None, Spelled("10m", "365d")] = Field(
        86_400.0,
        description="a machine that runs for longer raises an alarm, 10m to 365d, or never",
        json_schema_extra={"default": "86400s"},
    )
    stop_silent: bool = Field(
        False, description="whether an operator may have a machine stopped whose worker is silent"
    )
    dead_man: Annotated[float | None, Spelled("1m", "7d")] = Field(
        900.0,
        description="a machine without a task and without contact for so long shuts itself down, 1m to 7d, or never",
        json_schema_extra={"default": "900s"},
    )
    shutdown_command: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="by which it does so; left out: shutdown -h now, on an instance of EC2 alone"
    )
    logins_keep_awake: bool = Field(
        True, description="whether a machine is busy while somebody is logged in, or has a shell open on it"
    )
    on_hours: tuple[Hours, ...] = Field((), description='when one machine at least runs: "mon-fri 08:00-18:00"')
    off_hours: tuple[Hours, ...] = Field(
        (), description="when an idle machine is stopped at once, and none is started ahead of work"
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field("UTC", description="of these hours, such as Europe/Warsaw")
    price_per_hour: Price | None = Field(
        None, description="what a machine costs in an hour; left out: cost is not known"
    )
    currency: Annotated[str, _matching(r"[A-Z]{3}", "must be three capital letters, such as USD")] = Field(
        "USD", description="of the price"
    )
    launch_template: (
        Annotated[
            str,
            _matching(
                r"[A-Za-z0-9().\-/_]{3,128}", "is not a launch template's name or id, such as lt-0abc1234def567890"
            ),
        ]
        | None
    ) = Field(None, description="name or id; machines are made by it while there are fewer than max_running")
    types: tuple[Kind, ...] = Field(
        (), description="instance types that are tried one after the other for a new machine"
    )
    production_tags: tuple[Annotated[str, AfterValidator(_tag)], ...] = Field(
        PRODUCTION_TAGS, description="an instance with one of these tags is never touched; case does not matter"
    )
    grow_disk: Annotated[str, AfterValidator(_size)] | None = Field(
        None, description="a full data volume is grown, up to this size: 500g; left out: never"
    )

    @property
    def is_ec2(self) -> bool:
        return self.provider == "ec2"

    @property
    def idle_policy(self) -> Literal["fixed", "break_even", "learned"]:
        """How long an idle machine waits for work, also where the settings leave it out."""
        return self.policy or ("fixed" if "idle" in self.model_fields_set else "learned")


LOCAL_KEYS = frozenset({"provider", "slots"})


def pool_conflicts(name: str, pool: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what is right alone and wrong together in a pool's raw table."""
    key = f"pools.{name}"
    if pool.get("provider", "local") != "ec2":
        for given in pool:
            if given in PoolSettings.model_fields and given not in LOCAL_KEYS:
                yield f"{key}.{given}", 'is for pools with provider = "ec2": leave it out, or set the provider'
        return
    for wanted, why in (("region", "its instances are in one region"), ("account", "no other account is touched")):
        if wanted not in pool:
            yield f"{key}.{wanted}", f'is required with provider = "ec2": {why}'
    least, most = pool.get("min_running", 0), pool.get("max_running", 1)
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield f"{key}.min_running", f"is more than max_running, which is {most}"
    if "types" in pool and "launch_template" not in pool:
        yield f"{key}.types", "is for new machines: give launch_template too"
    if "idle" in pool and pool.get("policy", "fixed") != "fixed":
        yield f"{key}.idle", f'is not used with policy = "{pool["policy"]}": keep one of them'
    if "time_zone" in pool and not ("on_hours" in pool or "off_hours" in pool):
        yield f"{key}.time_zone", "is for on_hours and off_hours, and neither is there"
