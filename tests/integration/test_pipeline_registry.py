"""Images that are away: removed between two batches, or on a registry that does not answer; by a real engine."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from fixtures_bench import BASE, Bench, MemoryRecorder, Outcome
from fixtures_registry import Registry

from runner.model import Order, TaskKind


def attempt(bench: Bench, order: Order) -> tuple[Outcome, MemoryRecorder]:
    recorder = bench.recorder(order)
    return bench.run(order, recorder), recorder


@pytest.mark.parametrize(
    ("status", "code", "ends"),
    [
        (404, "MANIFEST_UNKNOWN", "image_missing"),
        (404, "NAME_UNKNOWN", "image_missing"),
        (401, "UNAUTHORIZED", "image_missing"),
        (403, "DENIED", "image_missing"),
        (429, "TOOMANYREQUESTS", "registry_unavailable"),
        (500, "UNKNOWN", "registry_unavailable"),
        (503, "UNAVAILABLE", "registry_unavailable"),
    ],
)
def test_the_answers_of_a_registry(bench: Bench, registry: Registry, status: int, code: str, ends: str) -> None:
    registry.status, registry.code = status, code
    outcome, _ = bench.verify(f"run: 'true'\nworkspace: {{image: '{registry.image}'}}")
    assert outcome.code == ends, outcome.why
    assert registry.image in outcome.why


@pytest.mark.parametrize(
    ("status", "code", "ends"),
    [(404, "MANIFEST_UNKNOWN", "image_build_failed"), (503, "UNAVAILABLE", "registry_unavailable")],
)
def test_a_build_from_an_image_of_a_registry(
    bench: Bench, registry: Registry, status: int, code: str, ends: str
) -> None:
    registry.status, registry.code = status, code
    (bench.tree / "Dockerfile").write_text(f"FROM {registry.image}\nRUN true\n")
    outcome, _ = bench.verify("run: 'true'\nworkspace: {build: {dockerfile: Dockerfile}}")
    assert outcome.code == ends, outcome.why


def test_a_batch_waits_for_an_image_that_was_removed_before_it(bench: Bench, registry: Registry) -> None:
    """The preparation had it; somebody pruned it before the first batch, and the registry does not answer."""
    spec = "units: [a]\nrun: 'echo x >$SEATRIAL_OUTPUT/a.csv; echo a >>$SEATRIAL_CHECKPOINT'\nworkspace: {image: '%s'}"
    spec %= registry.image
    subprocess.run(["docker", "tag", BASE, registry.image], check=True)
    try:
        outcome, _ = attempt(bench, bench.order(spec, kind=TaskKind.PREPARE))
        assert outcome.prepared is not None
    finally:
        subprocess.run(["docker", "rmi", registry.image], check=True, capture_output=True)
    gone = "sha256:" + "0" * 64  # the base image itself stays for other tests
    batch = bench.order(spec, ["a"], image=outcome.prepared.image, image_digest=gone)
    recorder = bench.recorder(batch)
    for status, code in ((503, "UNAVAILABLE"), (404, "MANIFEST_UNKNOWN")):
        registry.status, registry.code = status, code
        ended = bench.run(batch, recorder)
        assert ended.code == "image_gone", ended.why
        assert registry.image in ended.why
        batch = bench.again(batch, recorder)
    subprocess.run(["docker", "tag", BASE, registry.image], check=True)
    try:
        ended = bench.run(batch, recorder)
    finally:
        subprocess.run(["docker", "rmi", registry.image], check=True, capture_output=True)
    assert ended.code == "done", ended.why
    assert bench.left_over() == []


def test_a_batch_builds_an_image_again_that_was_removed_before_it(bench: Bench) -> None:
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo {bench.installation} >/made\n")
    spec = "units: [a]\nrun: 'cp /made $SEATRIAL_OUTPUT/a.csv; echo a >>$SEATRIAL_CHECKPOINT'\n"
    spec += "workspace: {build: {dockerfile: Dockerfile}}"
    outcome, _ = attempt(bench, bench.order(spec, kind=TaskKind.PREPARE))
    made = outcome.prepared
    assert made is not None
    subprocess.run(["docker", "rmi", made.image], check=True, capture_output=True)
    assert bench.engine.image(made.image_digest) is None
    batch = bench.order(spec, ["a"], image=made.image, image_digest=made.image_digest)
    ended, recorder = attempt(bench, batch)
    assert ended.code == "done", ended.why
    assert "Step 1/" in recorder.said(), "it was built anew"
    assert bench.bytes_of(recorder.results["a"]).decode().strip() == bench.installation

    subprocess.run(["docker", "rmi", "-f", made.image], check=True, capture_output=True)
    (bench.tree / "Dockerfile").write_text("FROM localhost:1/none:1\n")  # as if its base had gone too, and its registry
    ended, _ = attempt(bench, replace(batch, attempt=2))
    assert ended.code == "image_gone", ended.why
    assert made.image in ended.why
