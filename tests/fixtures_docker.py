"""Fixtures: a real Docker engine, and a bench on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_bench import BASE, Bench

from runner.adapters.docker_engine import DockerEngine
from runner.model import Image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A real engine with the base image on it."""
    subprocess.run([str(ROOT / "docker" / "engine.sh")], check=True, capture_output=True, timeout=300)
    engine = DockerEngine()
    if engine.image(BASE) is None:
        subprocess.run([str(ROOT / "docker" / "base-image.sh")], check=True, capture_output=True, timeout=600)
    yield engine
    engine.close()


class TidyEngine(DockerEngine):
    """An engine that remembers the images that it built, so that a test can take them away."""

    def __init__(self) -> None:
        super().__init__()
        self.built: list[str] = []

    def build(self, context: Path, *, tag: str, **values: Any) -> Image:
        self.built.append(tag)
        return super().build(context, tag=tag, **values)


@pytest.fixture
def bench(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Bench]:
    engine = TidyEngine()
    made = Bench(engine, tmp_path)
    yield made
    for state in engine.find(installation=made.installation):
        engine.remove(state.name)
    engine.remove_volumes(installation=made.installation)
    if engine.built:
        subprocess.run(["docker", "rmi", "-f", *engine.built], check=False, capture_output=True)
    engine.close()
