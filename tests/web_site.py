"""A site for tests of the web: the real service on a real SQLite store, and a worker's hands to move its runs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from sqlalchemy.engine import make_url

from jobs.adapters.file_objects import FileObjects
from jobs.adapters.sql_store import Store
from jobs.adapters.sql_tasks import Claim
from jobs.heartbeats import COMPARER, SWEEPER
from jobs.run import Run, TaskState
from jobs.service import Service
from jobs.settings import load_settings
from jobs.submission import Submission
from runner.adapters.git_memory import MemoryMirror, MemoryRemote
from runner.model import Output, Prepared, Reason, Template, UnitResult, UnitState
from web.app import create_app

SPEC = b"""version: 1
workspace: {image: "ruby:3.3", limits: {cpus: 2, memory: 4g}}
database: {source: verification}
setup: ["bin/prepare"]
migrate: ["bin/rails db:migrate"]
units: bin/list-units
run: bin/export
"""


@cache
def empty_store() -> bytes:
    """Give the file of an empty store; to migrate one takes longer than most tests."""
    with TemporaryDirectory(prefix="seatrial-store-") as home:
        file = Path(home) / "empty.db"
        Store.open(f"sqlite:///{file}").close()
        return file.read_bytes()


class CompiledTemplates(BytecodeCache):
    """What Jinja made of the templates, for all applications of a test process: it takes half of a page's first time."""

    kept: ClassVar[dict[str, bytes]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.kept:
            bucket.bytecode_from_string(self.kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.kept[bucket.key] = bucket.bytecode_to_string()


class SilentBell:
    """A doorbell that nobody hears; the tests claim by themselves."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, pool: str) -> bool:
        self.rung.append(pool)
        return True


@dataclass
class Site:
    """The service, its store and a remote repository in memory."""

    root: Path
    store: Store
    service: Service
    objects: FileObjects
    remotes: dict[str, MemoryRemote]
    bell: SilentBell = field(default_factory=SilentBell)

    @classmethod
    def make(cls, root: Path, more: str = "", environ: Mapping[str, str] | None = None) -> Site:
        """Make a site; `more`: settings that are added to its own, as `environ` does."""
        config = root / "seatrial.toml"
        config.write_text(
            f"""
[server]
home = "{root}"
[projects.accounts]
repository = "https://git.example.com/accounts.git"
default_baseline = "v2.41.0"
[projects.plain]
repository = "https://git.example.com/plain.git"
[databases.verification]
dsn = "postgresql://nobody:canary@localhost/verification"
[databases.old_server]
dsn = "postgresql://nobody:canary@localhost/old"
{more}"""
        )
        settings = load_settings(config, {"HOME": str(root), **(environ or {})})
        file = Path(make_url(settings.server.database_url).database or "")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(empty_store())
        store = Store.open(settings.server.database_url)
        for name in (SWEEPER, COMPARER):
            store.heartbeats.beat(name)
        objects = FileObjects(settings.server.object_store)
        remotes = {"accounts": MemoryRemote(), "plain": MemoryRemote()}
        for name, remote in remotes.items():
            spec = SPEC if name == "accounts" else b"version: 1\nworkspace: {image: debian}\nrun: make check\n"
            files = {"seatrial.yml": spec}
            base = remote.commit(files, "Release 2.41.0", "Rin Sato")
            remote.set("refs/heads/main", base)
            remote.set("refs/tags/v2.41.0", base)
            head = remote.commit(files | {"a": b"1"}, "Round half to even in the ledger", "Mio Tanaka", base)
            remote.set("refs/heads/feature/rounding", head)
            remote.set("refs/heads/broken", remote.commit({"seatrial.yml": b"version: 2\nrun: 1\n"}, "Break it"))
            remote.set("refs/heads/bare", remote.commit({"a": b""}, "No specification"))
        mirrors = {name: MemoryMirror(remote) for name, remote in remotes.items()}
        for mirror in mirrors.values():
            mirror.fetch()
        bell = SilentBell()
        service = Service(settings, store, objects, mirrors.__getitem__, bell)
        return cls(root, store, service, objects, remotes, bell)

    def app(self, **options: object) -> Flask:
        """Build the application as the server does."""
        app = create_app(self.service, secret_key="test", user="mio", **options)  # type: ignore[arg-type]
        app.jinja_env.bytecode_cache = CompiledTemplates()
        return app

    def submit(self, ref: str = "feature/rounding", project: str = "accounts", **more: object) -> Run:
        run, _ = self.service.submit(Submission(project, ref, **more), user="mio")  # type: ignore[arg-type]
        return run

    # ---- a worker's hands ----

    def worker(self, name: str = "host-a/1") -> str:
        self.store.workers.register(name=name, host="host-a", pool="local", pid=4711)
        return name

    def claim(self, worker: str = "host-a/1") -> Claim:
        claim = self.store.tasks.claim(pool="local", host="host-a", worker=worker, lease=3600.0)
        assert claim is not None, "nothing to claim"
        return claim

    def claim_of_leg(self) -> Claim:
        """Claim the next task by a worker of its own, so that two legs can be under way at once."""
        number = len(self.store.workers.workers()) + 1
        return self.claim(self.worker(f"host-a/{number}"))

    def prepare_on(self, claim: Claim, units: Sequence[str], *, data: str, source: str, snapshot: str = "") -> None:
        """End a preparation that was claimed, on data of its own; all units are one batch."""
        template = Template(source, f"seatrial_leg_{claim.task.leg}", "app", data, snapshot)
        result = Prepared("ruby:3.3", "sha256:" + "ab" * 32, tuple(units), template)
        self.store.plan.prepared(claim.task.id, claim.task.attempt, result, lambda names: [tuple(names)])

    def log(self, claim: Claim, data: bytes) -> None:
        """Append to a task's log as a worker does: small pieces in the store, large ones as objects."""
        digest = None
        if len(data) > 16_384:
            digest, _ = self.objects.put(io.BytesIO(data))
        self.store.ledger.append_log(claim.task.id, claim.task.attempt, data, object_digest=digest, source=None)

    def step(self, claim: Claim, name: str, seconds: float | None, detail: str = "", state: str = "done") -> None:
        self.store.ledger.step(claim.task.id, claim.task.attempt, name, state=state, seconds=seconds, detail=detail)

    def prepare(self, units: Sequence[str], batches: int = 2, worker: str = "host-a/1") -> Claim:
        """Do the preparation of the next run: its steps, a log, the list of units."""
        claim = self.claim(worker)
        for name, seconds, detail in (
            ("checkout", 0.2, "4f2c9e1: 13,022 files"),
            ("image", 0.01, "ruby:3.3, reused"),
            ("clone", 0.03, "template, reflink"),
            ("setup", 1.4, "bin/prepare"),
            ("migrate", 38.2, "bin/rails db:migrate"),
            ("plan", 0.6, f"{len(units)} units"),
        ):
            self.step(claim, name, seconds, detail)
        self.log(claim, b"\x1b[1m$ bin/prepare\x1b[0m\nok\n$ bin/rails db:migrate\n== Round: migrated (38.1s)\n")
        size = max(1, -(-len(units) // batches))
        template = Template("verification", "seatrial_base", "app", "base-2026-11-20")

        def divide(names: Sequence[str]) -> list[tuple[str, ...]]:
            return [tuple(names[at : at + size]) for at in range(0, len(names), size)]

        result = Prepared("ruby:3.3", "sha256:" + "ab" * 32, tuple(units), template)
        self.store.plan.prepared(claim.task.id, claim.task.attempt, result, divide)
        return claim

    def output(self, data: bytes, name: str, *, tree: bool = False) -> Output:
        digest, size = self.objects.put(io.BytesIO(data))
        return Output(name, digest, size, tree)

    def tree(self, files: dict[str, bytes], name: str = "all") -> Output:
        """Store several files and the manifest that names them."""
        manifest = {}
        for path, data in files.items():
            digest, size = self.objects.put(io.BytesIO(data))
            manifest[path] = {"digest": digest, "size": size}
        found = self.output(json.dumps(manifest).encode(), name, tree=True)
        return Output(name, found.digest, sum(len(data) for data in files.values()), tree=True)

    def mark(self, claim: Claim, units: Sequence[str], *, failed: str = "", data: bytes | None = None) -> None:
        """Finish units, each with a small CSV; with `failed`, as failing with that text."""
        results = []
        for unit in units:
            body = data if data is not None else f"account,month,amount\n{unit},2026-11,12.50\n".encode()
            output = None if failed else self.output(body, f"{unit.rsplit('/', 1)[-1]}.csv")
            state = UnitState.FAILED if failed else UnitState.DONE
            results.append(UnitResult(unit, state, output, failed, 2.5))
        self.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)

    def end(self, claim: Claim, state: TaskState = TaskState.DONE, reason: Reason | None = None) -> None:
        self.store.tasks.end(claim.task.id, claim.task.attempt, state, reason)

    # ---- whole runs ----

    def passed(self, units: Sequence[str] = ("tenant_001/pl", "tenant_001/bs"), **more: object) -> Run:
        """Submit a run and finish it."""
        run = self.submit(**more)  # type: ignore[arg-type]
        self.prepare(units)
        while self.service.run(run.id).state.value != "done":
            claim = self.claim()
            self.step(claim, "run", 12.5, "bin/export")
            self.log(claim, b"".join(b"exported %s\n" % unit.encode() for unit in claim.units))
            self.mark(claim, claim.units)
            self.end(claim)
        return self.service.run(run.id)

    def failed(
        self, units: Sequence[str] = ("tenant_001/pl", "tenant_001/bs"), *, log: bytes = b"", **more: object
    ) -> Run:
        """Submit a run whose last unit fails; `log` is what its batch says besides."""
        run = self.submit(**more)  # type: ignore[arg-type]
        self.prepare(units, batches=1)
        claim = self.claim()
        self.step(claim, "run", 3.5, "bin/export")
        self.log(claim, b"exporting\n\x1b[31mKeyError: amount\x1b[0m\n" + log)
        self.mark(claim, claim.units[:-1])
        self.mark(claim, claim.units[-1:], failed="KeyError: amount (ledger.rb:42)")
        self.end(claim, TaskState.FAILED, Reason("units_failed", "1 of 2 units failed: tenant_001/bs"))
        return self.service.run(run.id)
