"""Fixtures for all tests; each kind of service has a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["fixtures_docker", "fixtures_postgres", "fixtures_s3", "fixtures_store"]
