"""The imports point one way, and the contracts that prove it do bite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The least tree in which every module that a contract names exists and every rule is kept.
KEPT = {
    "runner/__init__.py": "",
    "runner/pipeline.py": "import runner.stages\n",
    "runner/stages.py": "import runner.adapters.docker_engine\n",
    "runner/adapters/__init__.py": "",
    "runner/adapters/docker_engine.py": "import docker\n",
    "jobs/__init__.py": "",
    "jobs/service.py": "import runner\n",
    "jobs/worker.py": "import runner.pipeline\n",
    "jobs/adapters/__init__.py": "",
    "jobs/adapters/rq_queue.py": "import rq\n",
    "jobs/adapters/s3_bucket.py": "import boto3\nimport botocore\n",
    "jobs/adapters/s3_objects.py": "import botocore\nimport jobs.adapters.s3_bucket\n",
    "jobs/adapters/ec2_pool.py": "import boto3\n",
    "jobs/compose.py": "import jobs.adapters.s3_objects\n",
    "web/__init__.py": "import jobs.compose\nimport jobs.service\n",
}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_every_import_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_smallest_lawful_tree_is_kept(tmp_path: Path) -> None:
    result = lint_imports(plant(tmp_path, KEPT))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "text", "broken"),
    [
        ("runner/pipeline.py", "import jobs.service\n", "runner is not allowed to import jobs"),
        ("jobs/service.py", "import web\n", "jobs is not allowed to import web"),
        ("runner/stages.py", "import docker\n", "runner is not allowed to import docker"),
        ("jobs/service.py", "import git\n", "jobs is not allowed to import git"),
        ("jobs/service.py", "import sqlalchemy\n", "jobs is not allowed to import sqlalchemy"),
        ("runner/adapters/docker_engine.py", "import redis\n", "runner is not allowed to import redis"),
        ("web/__init__.py", "import jobs.worker\n", "web is not allowed to import runner.pipeline"),
        ("web/__init__.py", "import runner.adapters.docker_engine\n", "web is not allowed to import docker"),
        ("web/__init__.py", "import boto3\n", "web is not allowed to import boto3"),
        ("web/__init__.py", "import jobs.adapters.ec2_pool\n", "web is not allowed to import boto3"),
        ("jobs/compose.py", "import jobs.adapters.ec2_pool\n", "web is not allowed to import boto3"),
        ("jobs/compose.py", "import botocore\n", "jobs is not allowed to import botocore"),
    ],
)
def test_a_forbidden_import_is_named(tmp_path: Path, module: str, text: str, broken: str) -> None:
    result = lint_imports(plant(tmp_path, {**KEPT, module: text}))
    assert result.returncode == 1
    assert broken in result.stdout
