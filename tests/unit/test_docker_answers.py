"""What engines of several ages say when an image could not be fetched, and whose fault that is."""

from __future__ import annotations

import pytest

from runner.adapters.docker_answers import not_built, not_fetched

SAID_NO = [
    "manifest unknown",
    "name unknown",
    "denied",
    "unauthorized",
    "manifest for team/app:1 not found: manifest unknown: manifest unknown",
    "pull access denied for team/app, repository does not exist or may require 'docker login'",
    "denied: requested access to the resource is denied",
    "repository team/app not found: name unknown: repository name not known to registry",
    'Head "https://registry.example.com/v2/team/app/manifests/1": no basic auth credentials',
    'Head "https://registry.example.com/v2/team/app/manifests/1": unauthorized: authentication required',
    "error from registry: unauthorized: incorrect username or password",
    'failed to resolve reference "docker.io/team/app:1": docker.io/team/app:1: not found',
    "no matching manifest for linux/arm64/v8 in the manifest list entries",
]
NO_ANSWER = [
    'Get "http://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host',
    'Get "https://registry-1.docker.io/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)',
    'Get "https://registry.example.com/v2/": context deadline exceeded',
    'Get "https://registry.example.com/v2/": dial tcp 192.0.2.1:443: connect: permission denied',
    'Get "https://registry.example.com/v2/": x509: certificate signed by unknown authority',
    'Get "https://registry.example.com/v2/": net/http: TLS handshake timeout',
    "toomanyrequests: You have reached your pull rate limit",
    "error from registry: You have reached your unauthenticated pull rate limit",
    "received unexpected HTTP status: 503 Service Unavailable",
    "received unexpected HTTP status: 500 Internal Server Error",
    'error parsing HTTP 404 response body: no error details found in HTTP response body: "{}"',
    "unexpected EOF",
]
FROM = "Step 1/3 : FROM team/app:1\n"


@pytest.mark.parametrize("why", SAID_NO)
def test_a_plain_no_is_the_branchs_fault(why: str) -> None:
    error = not_fetched("team/app:1", why)
    assert error.code == "image_missing"
    assert "team/app:1" in error.text
    assert why in error.text
    assert not_built(FROM, why) is None


@pytest.mark.parametrize("why", NO_ANSWER)
def test_all_else_is_an_outage(why: str) -> None:
    error = not_fetched("team/app:1", why)
    assert error.code == "registry_unavailable"
    assert "The image team/app:1 is not on this machine" in error.text
    assert why in error.text
    assert "Build or load it here" in error.text
    built = not_built(FROM, why)
    assert built is not None
    assert built.code == "registry_unavailable"
    assert "begins with the image team/app:1," in built.text


@pytest.mark.parametrize("why", NO_ANSWER)
def test_what_an_instruction_of_the_branch_cannot_reach_is_the_branchs_fault(why: str) -> None:
    assert not_built("Step 2/3 : RUN curl https://registry.example.com\n", why) is None


@pytest.mark.parametrize(
    "why", ["base name (${BASE}) should not be blank", "failed to process \"${X\": missing ':' in substitution"]
)
def test_a_from_that_is_none_is_the_branchs_fault(why: str) -> None:
    assert not_built(FROM, why) is None


def test_a_disk_without_room_is_neither_the_branchs_fault_nor_the_registrys() -> None:
    why = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"
    assert not_fetched("team/app:1", why).code == "disk_full"
    for step in (FROM, "Step 2/3 : COPY . /app\n"):
        error = not_built(step, why)
        assert error is not None
        assert error.code == "disk_full"
