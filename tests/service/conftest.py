"""A site of one's own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from web_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site.make(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def client(site: Site) -> FlaskClient:
    return site.app().test_client()
