"""Fixtures: EC2 over HTTP (moto), and a road to it that counts every call, fails on demand and gives machines a life.

Moto stops and starts at once. The road lets both take their time, refuses what EC2 refuses meanwhile, keeps launches
by their token, and calls whoever plays the machines.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import boto3
import pytest
from botocore.config import Config
from fixtures_s3 import CREDENTIALS, UNSET, S3Server

ACCOUNT = "123456789012"
REGION = "us-east-1"
FORBIDDEN = ("Terminate", "Delete", "Modify")
IMAGE = "ami-12c6146b"
SERVICES = ("EC2", "STS", "CLOUDWATCH")


@dataclass(frozen=True)
class Call:
    """A request as it arrived: its action, its instances, whether it was a dry run, what was answered, and when."""

    action: str
    instances: tuple[str, ...]
    dry: bool
    at: float
    words: dict[str, str] = field(default_factory=dict, hash=False)


Answer = tuple[int, str]  # status and code of an error; 0: the connection is cut
Rule = Callable[[Call], Answer | None]


class Road:
    """A proxy before a moto server. `calls`: all that came by. `rule`: what to answer in moto's place.

    `lose`: which calls are carried out, and their answer is lost. `stopping`, `pending`: seconds that each takes.
    `stopped`, `started`: told of a machine whose stop begins, or whose boot is over.
    """

    def __init__(self, target: int) -> None:
        self.calls: list[Call] = []
        self.rule: Rule = lambda call: None
        self.lose: Callable[[Call], bool] = lambda call: False
        self.before: Callable[[Call], None] = lambda call: None
        self.slow: Callable[[Call], float] = lambda call: 0.0
        self.empty = False
        self.stopping = self.pending = 0.0
        self.stopped: Callable[[str], None] = lambda instance: None
        self.started: Callable[[str], None] = lambda instance: None
        self.stops: list[str] = []  # that had an effect
        self.starts: list[str] = []
        self._target = target
        self._until: dict[str, tuple[str, float]] = {}  # what a machine is on its way through, and until when
        self._launched: dict[str, str] = {}  # when a machine was started last: moto keeps its first start
        self._tokens: dict[str, bytes] = {}
        self._lock = threading.RLock()
        road = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = road.answer(self.path, body, dict(self.headers))
                if answer is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, data, kind = answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing of connections that were cut."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ---- for the test ---------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to come by this road."""
        return CREDENTIALS | {f"AWS_ENDPOINT_URL_{service}": self.url for service in SERVICES}

    def done(self, action: str, instance: str | None = None, *, dry: bool = False) -> list[Call]:
        """List the calls of an action."""
        return [
            call
            for call in list(self.calls)
            if call.action == action and call.dry is dry and (instance is None or instance in call.instances)
        ]

    def forbidden(self) -> list[str]:
        """List the calls whose name none may have."""
        return [call.action for call in list(self.calls) if call.action.startswith(FORBIDDEN)]

    # ---- the road -------------------------------------------------------------------------------------------

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str] | None:
        words = {key: values[0] for key, values in parse_qs(body.decode("latin-1")).items()}
        action = words.get("Action") or headers.get("X-Amz-Target", "").rpartition(".")[2] or path.rpartition("/")[2]
        instances = tuple(value for key, value in words.items() if key.startswith("InstanceId"))
        call = Call(action, instances, words.get("DryRun", "").lower() == "true", time.monotonic(), words)
        self.calls.append(call)
        self.before(call)
        time.sleep(self.slow(call))
        ruled = self.rule(call) or self._state_refused(call)
        if ruled is not None:
            return None if ruled[0] == 0 else (ruled[0], _error(ruled[1]), "text/xml")
        token = words.get("ClientToken", "") if action == "RunInstances" and not call.dry else ""
        with self._lock:
            if token in self._tokens:
                return 200, self._tokens[token], "text/xml"
            before = self._states(call)
            status, data, kind = self._pass_on(path, body, headers)
            if token and status == 200:
                self._tokens[token] = data
            if status == 200 and not call.dry:
                self._live(call, before, data)
        if self.lose(call):
            return None
        if action == "DescribeInstances" and status == 200:
            data = self._told(data)
        return status, data, kind

    def _pass_on(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        connection = HTTPConnection("127.0.0.1", self._target, timeout=30)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data, answer.getheader("Content-Type") or "text/xml"

    def _state_refused(self, call: Call) -> Answer | None:
        """EC2 starts no machine that is stopping."""
        if call.action == "StartInstances" and not call.dry:
            for instance in call.instances:
                if self._on_its_way(instance) == "stopping":
                    return 400, "IncorrectInstanceState"
        return None

    def _on_its_way(self, instance: str) -> str | None:
        state, until = self._until.get(instance, ("", 0.0))
        return state if time.monotonic() < until else None

    def _states(self, call: Call) -> dict[str, str]:
        if call.dry or call.action not in ("StartInstances", "StopInstances"):
            return {}
        return {instance: state_of(self._target, instance) for instance in call.instances}

    def _live(self, call: Call, before: dict[str, str], data: bytes) -> None:
        if call.action == "StopInstances":
            for instance in call.instances:
                if before[instance] == "running":
                    self.stops.append(instance)
                    self._until[instance] = ("stopping", time.monotonic() + self.stopping)
                    self.stopped(instance)
        elif call.action == "StartInstances":
            for instance in call.instances:
                if before[instance] == "stopped":
                    self._boot(instance)
        elif call.action == "RunInstances":
            for tag in ElementTree.fromstring(data).iter():  # noqa: S314 - moto wrote it
                if tag.tag.endswith("}instanceId") and tag.text:
                    self._boot(tag.text)

    def _boot(self, instance: str) -> None:
        self.starts.append(instance)
        self._launched[instance] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        until = time.monotonic() + self.pending
        self._until[instance] = ("pending", until)

        def arrive() -> None:
            # Who is stopped while it boots never arrives.
            if self._until.get(instance) == ("pending", until):
                self.started(instance)

        timer = threading.Timer(self.pending, arrive)
        timer.daemon = True
        timer.start()

    def _told(self, data: bytes) -> bytes:
        root = ElementTree.fromstring(data)  # noqa: S314 - moto wrote it
        for tag in root.iter():
            if tag.tag.endswith("}reservationSet") and self.empty:
                for child in list(tag):
                    tag.remove(child)
            if not tag.tag.endswith("}item"):
                continue
            parts = {part.tag.rpartition("}")[2]: part for part in tag}
            if "instanceId" in parts and "instanceState" in parts:
                instance = parts["instanceId"].text or ""
                state = self._on_its_way(instance)
                if "launchTime" in parts and instance in self._launched:
                    parts["launchTime"].text = self._launched[instance]
                for part in parts["instanceState"]:
                    if state and part.tag.endswith("}name"):
                        part.text = state
        return ElementTree.tostring(root)


def _error(code: str) -> bytes:
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>As the test wants it.</Message></Error></Errors>"
        "<RequestID>r</RequestID></Response>"
    ).encode()


@functools.cache
def client_of(port: int, service: str = "ec2", region: str = REGION) -> Any:
    """Open a client that goes behind the product's back."""
    return boto3.session.Session(
        aws_access_key_id="testing", aws_secret_access_key="testing", region_name=region
    ).client(service, endpoint_url=f"http://127.0.0.1:{port}", config=Config(retries={"total_max_attempts": 1}))


def state_of(port: int, instance: str) -> str:
    """Tell what moto says of an instance; nothing of one that is not there."""
    words = [{"Name": "instance-id", "Values": [instance]}]
    found = client_of(port).describe_instances(Filters=words)["Reservations"]
    return str(found[0]["Instances"][0]["State"]["Name"]) if found else ""


class Yard:
    """Makes the machines and launch templates of a test at the moto server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = client_of(port)

    def machine(self, pool: str | None, *, state: str = "stopped", kind: str = "m6i.large", **tags: str) -> str:
        """Make a machine with a pool's marker and other tags; `_` in a tag's name stands for `:`."""
        all_tags = ({"seatrial:pool": pool} if pool else {}) | tags
        answer = self.client.run_instances(
            ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType=kind,
            **({"TagSpecifications": [{"ResourceType": "instance", "Tags": [
                {"Key": key, "Value": value} for key, value in all_tags.items()]}]} if all_tags else {}),
        )  # fmt: skip
        instance = str(answer["Instances"][0]["InstanceId"])
        if state == "stopped":
            self.client.stop_instances(InstanceIds=[instance])
        return instance

    def template(self, name: str, kind: str = "m6i.large") -> str:
        """Make a launch template."""
        data = {"ImageId": IMAGE, "InstanceType": kind}
        self.client.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        return name

    def state(self, instance: str) -> str:
        return state_of(self.port, instance)


@pytest.fixture
def yard(s3_server: S3Server) -> Yard:
    return Yard(s3_server.port)


@pytest.fixture
def road(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """The road to EC2, and an environment in which boto3 takes it. Ends with the proof that no forbidden call was made."""
    made = Road(s3_server.port)
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()
    assert made.forbidden() == []
