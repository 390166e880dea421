"""What the trials share: a server that may be killed, with a short lease and a database behind a road that can be cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixtures_git import Repository
from fixtures_postgres import Proxy, Sample, drop_sample, make_sample
from fixtures_server import Server, diagnose

from jobs.adapters.embedded_postgres import EmbeddedPostgres

# Times are told in leases. The long form has the lease that people get.
LONG = bool(os.environ.get("SEATRIAL_CHAOS_LONG"))
LEASE = 5.0 if LONG else 3.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Show what the servers were at when a test failed."""
    report = yield
    if report.failed:
        report.sections += diagnose(Server.live)
    return report


@pytest.fixture(scope="session")
def lease() -> float:
    """The lease of every server here, in seconds."""
    return LEASE


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository for branches that tests write."""
    return Repository(tmp_path_factory.mktemp("lab") / "lab.git")


@pytest.fixture(scope="session")
def sample(postgres18: EmbeddedPostgres) -> Iterator[Sample]:
    """A verification database."""
    made = make_sample(postgres18)
    yield made
    drop_sample(made)


@pytest.fixture(scope="session")
def link(postgres18: EmbeddedPostgres) -> Iterator[Proxy]:
    """The road by which the server reaches its database; it can be cut."""
    with Proxy(postgres18.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def shared_server(lab: Repository, sample: Sample, link: Proxy, lease: float) -> Iterator[Server]:
    """A server whose processes may be killed."""
    with Server({"lab": lab.path}, {"sample": link.through(sample.dsn)}, lease=lease, history=True) as one:
        one.bless("sample")
        yield one


@pytest.fixture
def server(shared_server: Server, link: Proxy) -> Iterator[Server]:
    """The server of the trials, with nothing running before and after the test."""
    yield shared_server
    link.mend()
    shared_server.cancel_all()
