"""The metadata client against a service that insists on tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from fake_imds import EVENTS, IDENTITY, SPOT, FakeImds
from fixtures_postgres import free_port

from jobs.adapters.imds import ENDPOINT, Identity, Imds, MetadataUnavailable


@pytest.fixture
def service() -> Iterator[FakeImds]:
    with closing(FakeImds()) as fake:
        yield fake


@pytest.fixture
def imds(service: FakeImds) -> Iterator[Imds]:
    with closing(Imds(service.url)) as client:
        yield client


def test_an_instance_knows_itself_by_a_token(service: FakeImds, imds: Imds) -> None:
    assert imds.identity() == Identity(
        "i-0123456789abcdef0", "eu-central-1", "123456789012", "m7i.xlarge", "eu-central-1a"
    )
    assert service.asked == ["PUT /latest/api/token", f"GET {IDENTITY}"]


def test_a_token_that_ran_out_is_asked_for_anew(service: FakeImds, imds: Imds) -> None:
    imds.identity()
    service.tokens.clear()
    assert imds.identity().instance == "i-0123456789abcdef0"
    assert service.asked.count("PUT /latest/api/token") == 2


def test_nothing_announced_is_no_notice(imds: Imds) -> None:
    assert imds.notices() == ()


def test_interruptions_and_active_events_are_notices_in_their_order(service: FakeImds, imds: Imds) -> None:
    service.documents[SPOT] = {"action": "stop", "time": "2026-11-20T08:22:00Z"}
    service.documents[EVENTS] = [
        {"NotBefore": "21 Nov 2026 09:00:43 GMT", "Code": "system-reboot", "Description": "reboot", "State": "active"},
        {"NotBefore": "19 Nov 2026 09:00:43 GMT", "Code": "instance-stop", "Description": "over", "State": "completed"},
        {"NotBefore": "20 Nov 2026 06:00:00 GMT", "Code": "instance-retirement", "Description": "retired"},
    ]
    assert [(notice.kind, notice.at) for notice in imds.notices()] == [
        ("instance-retirement", datetime(2026, 11, 20, 6, tzinfo=UTC)),
        ("spot-stop", datetime(2026, 11, 20, 8, 22, tzinfo=UTC)),
        ("system-reboot", datetime(2026, 11, 21, 9, 0, 43, tzinfo=UTC)),
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "not there"),
        ({"region": "eu-central-1", "accountId": "1"}, "no instanceId"),
        ("<html>", "no JSON"),
        (["i-1"], "not there"),
    ],
)
def test_an_identity_that_cannot_be_read_is_said(service: FakeImds, imds: Imds, document: object, words: str) -> None:
    service.documents[IDENTITY] = document
    if document is None:
        del service.documents[IDENTITY]
    with pytest.raises(MetadataUnavailable, match=words):
        imds.identity()


def test_a_time_that_is_none_is_said(service: FakeImds, imds: Imds) -> None:
    service.documents[SPOT] = {"action": "stop", "time": "soon"}
    with pytest.raises(MetadataUnavailable, match="no time"):
        imds.notices()


def test_nobody_there_is_said_at_once() -> None:
    with closing(Imds(f"http://127.0.0.1:{free_port()}")) as nobody, pytest.raises(MetadataUnavailable):
        nobody.identity()


def test_the_environment_names_another_endpoint_and_no_proxy_is_asked(
    service: FakeImds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with closing(Imds.of({"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{service.url}/"})) as client:
        assert client.identity().region == "eu-central-1"
    with closing(Imds.of({})) as usual:
        assert str(usual._http.base_url).rstrip("/") == ENDPOINT
