"""The OpenAPI document covers every route, and the implementation answers as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from web_site import Site

from web.openapi import OPERATIONS, build

# A viewer's stream does not end by itself while a run goes on; tests/service/test_api_stream.py has it.
STREAM = "/api/v1/runs/{run}/stream"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site.make(tmp_path_factory.mktemp("site"))
    site.worker()
    site.passed(["a/pl", "b/pl"])
    site.failed()
    site.submit("main")
    yield site
    site.store.close()


@pytest.fixture(scope="module")
def schema(site: Site) -> BaseSchema:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app=site.app())


def test_every_route_of_the_api_is_described(site: Site) -> None:
    app = site.app()
    routes = {
        rule.endpoint for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/") or rule.rule == "/healthz"
    }
    assert routes == set(OPERATIONS)
    document = build(app)
    assert document["openapi"] == "3.1.0"
    described = [item for path in document["paths"].values() for item in path.values()]
    assert len(described) == len(OPERATIONS)
    assert all(item["summary"].endswith(".") for item in described)
    assert json.loads(app.test_client().get("/api/v1/openapi.json").data) == document


def test_the_document_is_valid(schema: BaseSchema) -> None:
    schema.validate()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_the_document_says(schema: BaseSchema, mode: GenerationMode) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == STREAM:
            continue

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks)

        try:
            check()
        except Unsatisfiable:  # nothing about this operation can be wrong: it takes no input
            assert mode is GenerationMode.NEGATIVE
            continue
        tried += 1
    # Schemathesis leaves out the document itself, and this test the stream.
    assert tried == len(OPERATIONS) - 2 if mode is GenerationMode.POSITIVE else tried >= 12
