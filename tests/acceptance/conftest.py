"""Fixtures of the acceptance tests: real servers, spoken to by HTTP API and CLI only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample, drop_sample, make_sample
from fixtures_server import Server, diagnose

from jobs.adapters.embedded_postgres import EmbeddedPostgres


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Show what the servers were at when a test failed."""
    report = yield
    if report.failed:
        report.sections += diagnose(Server.live)
    return report


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository for branches that tests write."""
    return Repository(tmp_path_factory.mktemp("lab") / "lab.git")


@pytest.fixture(scope="session")
def samples(postgres18: EmbeddedPostgres) -> Iterator[tuple[Sample, Sample]]:
    """Two verification databases; only the first will be blessed."""
    made = make_sample(postgres18), make_sample(postgres18)
    yield made
    for sample in made:
        drop_sample(sample)


@pytest.fixture(scope="session")
def link(postgres18: EmbeddedPostgres) -> Iterator[Proxy]:
    """The road by which the shared server reaches its databases; it can be cut."""
    with Proxy(postgres18.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository that a test may take away."""
    return Repository(tmp_path_factory.mktemp("gone") / "gone.git")


@pytest.fixture(scope="session")
def shared_server(lab: Repository, gone: Repository, samples: tuple[Sample, Sample], link: Proxy) -> Iterator[Server]:
    """One server for all tests that leave its processes alone."""
    marked, unmarked = samples
    databases = {"sample": link.through(marked.dsn), "unmarked": link.through(unmarked.dsn)}
    projects = {"lab": lab.path, "gone": gone.path}
    with Server(projects, databases) as server:
        server.bless("sample")
        yield server


@pytest.fixture
def server(shared_server: Server, link: Proxy) -> Iterator[Server]:
    """The shared server, with nothing running before and after the test."""
    yield shared_server
    link.mend()
    shared_server.cancel_all()
