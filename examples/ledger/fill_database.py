"""Fill an empty PostgreSQL database with the books of the ledger example, at the schema of its branch `released`.

    DATABASE_URL=postgresql://… python3 examples/ledger/fill_database.py --home DIR

django-ledger is installed into a virtual environment in DIR once, by uv, from the same hashed requirements as the
example's image.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "layers" / "released" / "image" / "requirements.txt"
ENTITIES = 6
DOCUMENTS = 8


def environment(home: Path) -> Path:
    """Return the Python of an environment with the released django-ledger, made in `home` unless it is there."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    venv = home / f"ledger-venv-{digest}"
    complete = venv / "complete"
    if not complete.exists():
        uv = [sys.executable, "-m", "uv"]
        # Trust what the host trusts, as docker/venv.sh does: a proxy may sign anew.
        trusting = {"UV_SYSTEM_CERTS": "1"} | os.environ
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], check=True)
        install = ["pip", "install", "--quiet", "--require-hashes", "--python", str(venv / "bin" / "python")]
        subprocess.run([*uv, *install, "--requirement", str(REQUIREMENTS)], env=trusting, check=True)
        complete.touch()
    return venv / "bin" / "python"


def fill(dsn: str, home: Path, *, entities: int = ENTITIES, documents: int = DOCUMENTS) -> None:
    """Create the books; progress goes to stdout. CalledProcessError when it failed: drop the database then."""
    python = environment(home)
    settings = {
        "DATABASE_URL": dsn,
        "PYTHONPATH": str(HERE / "template"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # django-ledger draws from sets: the same seed shall make the same books
        # The database is new: if the machine falls over now, it is made again.
        "PGOPTIONS": "-c synchronous_commit=off",
    }
    command = [str(python), str(HERE / "generate.py"), "--entities", str(entities), "--documents", str(documents)]
    subprocess.run(command, env=os.environ | settings, check=True)


def main() -> None:
    """Fill the database of $DATABASE_URL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where the virtual environment is kept")
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    options = parser.parse_args()
    try:
        fill(os.environ["DATABASE_URL"], options.home, entities=options.entities, documents=options.documents)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from error


if __name__ == "__main__":
    main()
