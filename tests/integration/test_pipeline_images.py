"""Images that a branch builds: reused by content, blind to the host's files, free of its proxies and passwords."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures_bench import BASE, Bench, MemoryRecorder, Outcome

from runner.images import CA_IN_IMAGE, BuildHost
from runner.model import TaskKind

CANARY = "canary-" + "c0ffee" * 3
BUILD = "run: 'true'\nunits: [u]\nworkspace: {build: {dockerfile: Dockerfile%s}}"


@pytest.fixture
def nonce() -> str:
    """Text that makes an image this test's own."""
    return secrets.token_hex(8)


def prepare(bench: Bench, spec: str = BUILD % "") -> tuple[Outcome, MemoryRecorder]:
    order = bench.order(spec, kind=TaskKind.PREPARE)
    recorder = bench.recorder(order)
    return bench.run(order, recorder), recorder


def detail(recorder: MemoryRecorder) -> str:
    return next(text for name, state, _, text in recorder.steps if (name, state) == ("image", "done"))


def test_a_build_is_reused_as_long_as_its_content_is_the_same(bench: Bench, nonce: str) -> None:
    (bench.tree / "file").write_text(nonce)
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nCOPY file /made\nRUN cat /made\n")
    first, recorder = prepare(bench)
    assert first.code == "done", first.why
    assert detail(recorder).startswith("built seatrial/build:")
    assert "Step 2/" in recorder.said()
    assert f"{nonce}" in recorder.said(), "what a RUN prints is in the log"
    again, recorder = prepare(bench)
    assert detail(recorder).startswith("reused")
    assert again.prepared == first.prepared
    (bench.tree / "file").write_text(nonce + "!")
    changed, recorder = prepare(bench)
    assert detail(recorder).startswith("built")
    assert changed.prepared is not None
    assert first.prepared is not None
    assert changed.prepared.image_digest != first.prepared.image_digest


def test_a_missing_dockerfile_is_named(bench: Bench) -> None:
    outcome, _ = prepare(bench)
    assert outcome.code == "image_build_failed"
    assert "The commit has no Dockerfile, which workspace.build.dockerfile names." in outcome.why


def test_a_build_that_fails_shows_its_last_lines(bench: Bench) -> None:
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo nearly there; echo but no >&2; exit 7\n")
    outcome, recorder = prepare(bench)
    assert outcome.code == "image_build_failed"
    assert "returned a non-zero code: 7" in outcome.why
    assert "nearly there" in recorder.said()
    assert "but no" in recorder.said()


@pytest.mark.parametrize("text", ["", "NONSENSE x\n", "RUN true\n", "FROM\n"])
def test_a_dockerfile_that_is_none_is_the_branchs_fault(bench: Bench, text: str) -> None:
    (bench.tree / "Dockerfile").write_text(text)
    outcome, _ = prepare(bench)
    assert outcome.code == "image_build_failed", outcome.why


def test_a_build_can_be_cancelled(bench: Bench, nonce: str) -> None:
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo {nonce}; echo ready; sleep 60\n")
    order = bench.order(BUILD % "", kind=TaskKind.PREPARE)
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for("ready")
    recorder.cancelled.set()
    outcome = running.end(30)  # its RUN takes 60
    assert outcome.code == "cancelled"


def test_a_build_has_as_long_as_a_setup(bench: Bench, nonce: str) -> None:
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo {nonce}; sleep 60\n")
    outcome, _ = prepare(bench, BUILD % "" + "\ntimeouts: {setup: 2s}")
    assert outcome.code == "timed_out"
    assert "timeouts.setup" in outcome.why
    assert outcome.seconds < 45


# ---- the host's files -------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the host, outside of the tree, with a secret in it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(CANARY)
    (outside / "Dockerfile").write_text(f"FROM {BASE}\nCOPY secret /secret\n# {CANARY}\n")
    (outside / ".dockerignore").write_text(f"# {CANARY}\n")
    return outside


@pytest.mark.parametrize("where", ["context", "above the context", "dockerfile", "above the dockerfile", "ignore"])
def test_links_out_of_the_tree_are_refused(bench: Bench, canary: Path, where: str) -> None:
    dockerfile = f"FROM {BASE}\nRUN cat secret /secret 2>&1; false\n"
    extra = ""
    if where == "context":
        (bench.tree / "Dockerfile").write_text(dockerfile)
        (bench.tree / "ctx").symlink_to(canary)
        extra = ", context: ctx"
    elif where == "above the context":
        (bench.tree / "Dockerfile").write_text(dockerfile)
        (bench.tree / "link").symlink_to(canary.parent)
        extra = f", context: link/{canary.name}"
    elif where == "dockerfile":
        (bench.tree / "Dockerfile").symlink_to(canary / "Dockerfile")
    elif where == "above the dockerfile":
        (bench.tree / "link").symlink_to(canary)
    else:
        (bench.tree / "Dockerfile").write_text(dockerfile)
        (bench.tree / ".dockerignore").symlink_to(canary / ".dockerignore")
    spec = BUILD % extra
    if where == "above the dockerfile":
        spec = spec.replace("dockerfile: Dockerfile", "dockerfile: link/Dockerfile")
    outcome, recorder = prepare(bench, spec)
    assert outcome.code == "image_build_failed"
    assert "a symbolic link" in outcome.why
    assert CANARY not in recorder.said()


@pytest.mark.parametrize("copy", ["secret", "dir/secret", "dir", "."])
def test_links_in_the_context_lead_nowhere(bench: Bench, canary: Path, copy: str, nonce: str) -> None:
    (bench.tree / "secret").symlink_to(canary / "secret")
    (bench.tree / "dir").symlink_to(canary)
    (bench.tree / ".seatrial-build").symlink_to(canary)
    show = "RUN grep -r canary /made / --include=secret -s | head; ls -lR /made; cat /made /made/secret || true"
    (bench.tree / "Dockerfile").write_text(f"FROM {BASE}\nCOPY {copy} /made\n{show} # {nonce}\n")
    _, recorder = prepare(bench)
    assert CANARY not in recorder.said()
    assert (canary / "Dockerfile").read_text().startswith("FROM"), "nothing was written there either"


# ---- what comes from the host -----------------------------------------------------------------------------

PROXY = "http://proxy.canary.invalid:3128"
PASSWORD = "http://user:pa55-canary@proxy.invalid:3128"


def test_proxies_and_certificates_are_there_for_the_build_alone(bench: Bench, tmp_path: Path, nonce: str) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(f"# a public bundle {nonce}\n")
    bench.runtime = replace(
        bench.runtime,
        build_host=BuildHost(bundle, {"HTTP_PROXY": PROXY, "https_proxy": PROXY, "HTTPS_PROXY": PASSWORD}),
    )
    (bench.tree / "Dockerfile").write_text(
        f"ARG HTTP_PROXY\nFROM {BASE}\nARG HTTP_PROXY\nARG https_proxy=\\\nnone\nENV KEPT=$HTTP_PROXY$https_proxy\n"
        f'RUN echo "proxy is $HTTP_PROXY" | sed \'s/c[a]nary/c-a-n-a-r-y/\'; echo "$SSL_CERT_FILE"; cat {CA_IN_IMAGE}; '
        'test -z "$HTTPS_PROXY"\n'
    )
    outcome, recorder = prepare(bench)
    assert outcome.code == "done", outcome.why + recorder.said()
    said = recorder.said()
    assert "proxy is http://proxy.c-a-n-a-r-y.invalid:3128" in said, "the build saw it"
    assert "HTTPS_PROXY holds credentials, so the build does not get it" in said
    assert nonce in said, "and the bundle"
    assert CA_IN_IMAGE in said
    assert outcome.prepared is not None
    name = outcome.prepared.image
    inspected = subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format={{json .}}", name], check=True, capture_output=True, text=True
    ).stdout
    assert "canary" not in inspected
    assert "canary" not in history
    [facts] = json.loads(inspected)
    assert not [text for text in facts["Config"]["Env"] if text.startswith(("SSL_CERT_FILE", "HTTP"))]
    saved = subprocess.run(["docker", "save", name], check=True, capture_output=True).stdout
    assert b"proxy.canary.invalid" not in saved, "neither in a layer"
    assert b"pa55-canary" not in saved
