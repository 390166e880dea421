"""The example projects: their repositories can be made anew anywhere, and say what is true."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import errors
from runner.spec import parse_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("ledger", "opaque", "rake")


def _load() -> Any:
    found = importlib.util.spec_from_file_location("examples_repository", EXAMPLES / "repository.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look their module up there
    found.loader.exec_module(module)
    return module


repository = _load()


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def example_in(directory: Path, commits: list[dict[str, Any]], files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (directory / "history.json").write_text(json.dumps({"default": "main", "commits": commits}))
    return directory


def commit(branch: str, **more: Any) -> dict[str, Any]:
    return {"branch": branch, "date": "2025-01-01T00:00:00+00:00", "message": f"Step on {branch}", **more}


def trees(name: str) -> dict[str, dict[str, bytes]]:
    """Give the tree at the tip of each branch."""
    return {step.branch: step.tree for step in repository.read_history(EXAMPLES / name)[1]}


def test_all_examples_are_there() -> None:
    assert tuple(repository.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_commit_ids_depend_on_the_templates_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = repository.make_repository(EXAMPLES / name, tmp_path / "plain.git")
    hostile = tmp_path / "gitconfig"
    hostile.write_text("[core]\nautocrlf = true\n[commit]\ngpgsign = true\n[init]\ndefaultBranch = other\n")
    for variable, value in {
        "GIT_CONFIG_GLOBAL": str(hostile),
        "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z",
        "GIT_COMMITTER_NAME": "Somebody Else",
        "GIT_DIR": str(tmp_path / "elsewhere.git"),
        "GIT_DEFAULT_HASH": "sha256",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(variable, value)
    again = repository.make_repository(EXAMPLES / name, tmp_path / "again.git")
    assert plain == again
    assert all(len(sha) == 40 for sha in plain.values())


def test_making_it_again_puts_its_branches_back_and_keeps_others(tmp_path: Path) -> None:
    target = tmp_path / "rake.git"
    made = repository.make_repository(EXAMPLES / "rake", target)
    git(target, "update-ref", "refs/heads/mine", made["feature/broken"])
    git(target, "update-ref", "refs/heads/main", made["feature/broken"])
    assert repository.make_repository(EXAMPLES / "rake", target) == made
    assert git(target, "rev-parse", "refs/heads/main") == made["main"]
    assert git(target, "rev-parse", "refs/heads/mine") == made["feature/broken"]
    git(target, "fsck", "--strict")


def test_the_repository_can_be_cloned_and_scripts_are_executable(tmp_path: Path) -> None:
    target = tmp_path / "opaque.git"
    repository.make_repository(EXAMPLES / "opaque", target)
    git(tmp_path, "clone", "--quiet", str(target), "tree")
    tree = tmp_path / "tree"
    assert git(tree, "symbolic-ref", "--short", "HEAD") == "main"
    assert os.access(tree / "bin" / "verify", os.X_OK)
    assert not os.access(tree / "seatrial.yml", os.X_OK)


def test_the_command_prints_the_refs_as_json(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "repository.py"), "ledger", "--target", str(tmp_path / "l.git")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert set(answer["refs"]) == {"released", "candidate", "planted-defect", "v0.7.11"}
    assert answer["refs"]["v0.7.11"] == answer["refs"]["released"]
    assert git(Path(answer["repository"]), "rev-parse", "candidate~1") == answer["refs"]["released"]


def test_an_edit_whose_place_is_not_there_is_refused(tmp_path: Path) -> None:
    for text in ("nothing", "a place, and a place"):
        edit = {"path": "file", "old": "a place", "new": "x"}
        steps = [commit("main", layers=["template"], edits=[edit])]
        example = example_in(tmp_path, steps, {"template/file": text})
        with pytest.raises(repository.ExampleError, match="file must hold this text exactly once: 'a place'"):
            repository.read_history(example)


def test_an_edit_of_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    steps = [commit("main", edits=[{"path": "gone", "old": "a", "new": "b"}])]
    with pytest.raises(repository.ExampleError, match="gone must hold"):
        repository.read_history(example_in(tmp_path, steps, {}))


def test_an_empty_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(repository.ExampleError, match="template holds no files"):
        repository.read_history(example_in(tmp_path, [commit("main", layers=["template"])], {}))


def test_a_start_from_an_unknown_branch_is_refused(tmp_path: Path) -> None:
    steps = [commit("feature", layers=["template"], **{"from": "main"})]
    with pytest.raises(repository.ExampleError, match="feature cannot start from main"):
        repository.read_history(example_in(tmp_path, steps, {"template/file": "x"}))


def test_a_target_that_is_no_directory_is_an_error_with_gits_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(repository.ExampleError, match=r"git init: .+"):
        repository.make_repository(EXAMPLES / "opaque", tmp_path / "file")


@pytest.mark.parametrize("name", NAMES)
def test_every_branch_has_a_valid_spec(name: str) -> None:
    for branch, tree in trees(name).items():
        spec = parse_spec(tree["seatrial.yml"], source=f"{name} {branch}")
        if spec.workspace.build is not None:
            assert spec.workspace.build.dockerfile in tree


@pytest.mark.parametrize("name", NAMES)
def test_expectations_name_branches_and_codes_that_exist(name: str) -> None:
    branches = set(trees(name))
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    entries = json.loads((EXAMPLES / name / "expected.json").read_text())
    alone = [entry["ref"] for entry in entries if "baseline" not in entry]
    assert sorted(alone) == sorted(branches)
    for entry in entries:
        assert entry["project"] == name
        assert {entry["ref"], entry.get("baseline", entry["ref"])} <= branches
        expect = entry["expect"]
        assert set(expect) == {"state", "verdict", "reason", "units"}
        assert (expect["state"] == "done") == (expect["verdict"] is not None) == (expect["reason"] is None)
        assert expect["reason"] in codes | {None}


def test_rake_has_as_many_units_as_its_expectation_says() -> None:
    reports = [path for path in trees("rake")["main"] if path.startswith("reports/")]
    tenants = 40
    assert f"FOR tenant IN 1..{tenants} LOOP" in (EXAMPLES / "rake" / "seed.sql").read_text()
    entries = json.loads((EXAMPLES / "rake" / "expected.json").read_text())
    assert {entry["expect"]["units"].get("total", 480) for entry in entries} == {len(reports) * tenants}


def test_planted_defects_are_labelled_and_small() -> None:
    for name, good, bad, changed in (
        ("ledger", "candidate", "planted-defect", "verification/statements.py"),
        ("rake", "main", "feature/broken", "reports/margin_by_product.sql"),
    ):
        tree = trees(name)
        different = {path for path in tree[bad] if tree[bad][path] != tree[good].get(path)}
        assert different == {"DEFECT.md", changed}
        message = next(step.message for step in repository.read_history(EXAMPLES / name)[1] if step.branch == bad)
        assert "deliberate" in message
        assert "DEFECT.md" in message


def test_the_ledgers_packages_are_pinned_by_hash_and_name_no_host() -> None:
    versions: dict[str, dict[str, str]] = {}
    for branch in ("released", "candidate"):
        text = trees("ledger")[branch]["image/requirements.txt"].decode()
        assert "http" not in text
        blocks = [block for block in text.replace("\\\n", " ").splitlines() if not block.lstrip().startswith("#")]
        assert all("--hash=sha256:" in block for block in blocks)
        versions[branch] = dict(block.split()[0].split("==") for block in blocks)
    shared = set(versions["released"]) & set(versions["candidate"])
    different = {name for name in shared if versions["released"][name] != versions["candidate"][name]}
    assert different == {"django-ledger"}
    assert {"django", "psycopg2-binary", "tzdata"} <= shared


def run_opaque(workdir: Path, *arguments: str, interrupt: str = "0") -> int:
    (workdir / "output").mkdir(exist_ok=True)
    environment = os.environ | {
        "SEATRIAL_OUTPUT": str(workdir / "output"),
        "SEATRIAL_CHECKPOINT": str(workdir / "checkpoint"),
        "STAGE_SECONDS": "0",
        "INTERRUPT_AFTER": interrupt,
    }
    script = EXAMPLES / "opaque" / "template" / "bin" / "verify"
    return subprocess.run(["sh", str(script), *arguments], env=environment, check=False, capture_output=True).returncode


def test_the_opaque_script_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert run_opaque(whole) == 0
    assert run_opaque(parts, interrupt="3") == 75
    assert (parts / "checkpoint").read_text().split() == ["1", "2", "3"]
    assert run_opaque(parts, "--from", "3", interrupt="3") == 0
    assert (parts / "checkpoint").read_text() == (whole / "checkpoint").read_text()
    assert (parts / "output" / "result.txt").read_bytes() == (whole / "output" / "result.txt").read_bytes()


def test_the_opaque_script_fails_when_earlier_outputs_are_gone(tmp_path: Path) -> None:
    assert run_opaque(tmp_path, interrupt="3") == 75
    (tmp_path / "output" / "stage-3.txt").unlink()
    assert run_opaque(tmp_path, "--from", "3") not in (0, 75)
