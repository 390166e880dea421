"""What an EC2 instance is told about itself: the instance metadata service, version 2."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from jobs.machines import Notice
from runner.errors import InfraError

ENDPOINT = "http://169.254.169.254"
# As the SDKs of AWS name it; a test, or a host with IPv6 alone, sets another one.
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
TOKEN_SECONDS = 21_600  # six hours, the longest that the service gives
ANSWER_SECONDS = 2.0  # it is on the same machine

IDENTITY = "/latest/dynamic/instance-identity/document"
SPOT = "/latest/meta-data/spot/instance-action"
EVENTS = "/latest/meta-data/events/maintenance/scheduled"


class MetadataUnavailable(InfraError):
    """The instance metadata service does not answer."""


@dataclass(frozen=True)
class Identity:
    """Which instance this is, by its own identity document."""

    instance: str
    region: str
    account: str
    kind: str  # the instance type
    zone: str = ""


class Imds:
    """Ask the metadata service; every method raises MetadataUnavailable when it does not answer as it should.

    Only version 2 is spoken: a token first, which a forwarded request of a workspace could not get.
    """

    def __init__(self, endpoint: str = ENDPOINT, *, timeout: float = ANSWER_SECONDS) -> None:
        # Never by a proxy: it would tell of the proxy's machine.
        self._http = httpx.Client(base_url=endpoint.rstrip("/"), timeout=timeout, trust_env=False)
        self._lock = threading.Lock()
        self._token: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Imds:
        """Open the one that the environment names, or the usual one."""
        return cls(environment.get(ENDPOINT_VARIABLE) or ENDPOINT)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def identity(self) -> Identity:
        """Tell which instance this is."""
        known = self._json(IDENTITY)
        if not isinstance(known, dict):
            raise MetadataUnavailable("The instance's identity document is not there.")
        try:
            instance, region, account = (str(known[key]) for key in ("instanceId", "region", "accountId"))
        except KeyError as error:
            raise MetadataUnavailable(f"The instance's identity document has no {error.args[0]}.") from error
        return Identity(
            instance, region, account, str(known.get("instanceType", "")), str(known.get("availabilityZone", ""))
        )

    def notices(self) -> tuple[Notice, ...]:
        """Give what is announced for this instance, the next one first; what is over or was called off is none."""
        return tuple(sorted([*self._interruption(), *self._events()], key=lambda notice: notice.at))

    def _interruption(self) -> list[Notice]:
        known = self._json(SPOT)
        if not isinstance(known, dict) or "time" not in known:
            return []
        action = str(known.get("action", "terminate"))
        return [Notice(f"spot-{action}", _rfc3339(known["time"]), f"EC2 takes this spot instance back ({action}).")]

    def _events(self) -> list[Notice]:
        known = self._json(EVENTS)
        if not isinstance(known, list):
            return []
        return [
            Notice(str(event.get("Code", "event")), _written(event["NotBefore"]), str(event.get("Description", "")))
            for event in known
            if isinstance(event, dict) and "NotBefore" in event and event.get("State", "active") == "active"
        ]

    def _json(self, path: str) -> Any:
        """Read a document; None when there is none."""
        answer = self._get(path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise MetadataUnavailable(f"The instance metadata service answered {answer.status_code} for {path}.")
        try:
            return json.loads(answer.text)
        except ValueError as error:
            raise MetadataUnavailable(f"The instance metadata service gave no JSON for {path}.") from error

    def _get(self, path: str) -> httpx.Response:
        with self._lock:
            for _ in range(2):
                if self._token is None:
                    self._token = self._new_token()
                answer = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
                if answer.status_code != httpx.codes.UNAUTHORIZED:
                    break
                self._token = None  # it ran out, or the machine slept
            return answer

    def _new_token(self) -> str:
        answer = self._ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)})
        if answer.status_code != httpx.codes.OK or not answer.text:
            raise MetadataUnavailable(f"The instance metadata service gave no token (it said {answer.status_code}).")
        return answer.text

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> httpx.Response:
        try:
            return self._http.request(method, path, headers=headers)
        except httpx.HTTPError as error:
            raise MetadataUnavailable(f"The instance metadata service does not answer: {error}") from error


def _rfc3339(text: Any) -> datetime:
    try:
        return _aware(datetime.fromisoformat(str(text)))
    except ValueError as error:
        raise MetadataUnavailable(f"The instance metadata service gave no time: {text!r}") from error


def _written(text: Any) -> datetime:
    """Read `21 Jan 2019 09:00:43 GMT`, as scheduled events write it."""
    try:
        return datetime.strptime(str(text), "%d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return _rfc3339(text)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


__all__ = ["ENDPOINT", "ENDPOINT_VARIABLE", "Identity", "Imds", "MetadataUnavailable"]
