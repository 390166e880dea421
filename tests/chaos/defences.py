"""Take the defence of each row out of a copy of the work tree, and see that the row's test fails without it.

python tests/chaos/defences.py [ROW ...]      (rows: A1 … C8; all of them put the table into docs/reliability.md)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import docker
import psutil
from defences_table import DEFENCES, Defence, Edit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- defences -->", "<!-- /defences -->"
PACKAGES = ("runner", "jobs", "web")
# What a test waits for in vain takes so long: as a rule several times what it takes when it comes.
PATIENCE = 40
# One test with its services, and whatever it waits for in vain twice over. Beyond that it does not bound its wait.
TEST_SECONDS = 240
PASSED, FAILED = "passed", "failed"


@dataclass(frozen=True)
class Seen:
    """How a test ended: `passed`, `failed`, or why it did neither."""

    outcome: str
    how: str = ""


class Copy:
    """A copy of the work tree in a directory of its own, whose code the interpreter of this program imports."""

    def __init__(self, folder: Path, *, working: bool) -> None:
        self.folder, self.tree = folder, folder / "tree"
        self.tree.mkdir()
        self.patience = PATIENCE
        if working:
            self._take_working()
        else:
            archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            subprocess.run(["tar", "-x", "-C", str(self.tree)], input=archive.stdout, check=True)
        self._check_imports()

    def _take_working(self) -> None:
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)

    def _check_imports(self) -> None:
        """See that the copy's code is imported, wherever a test's processes begin, and not that of an editable install."""
        look = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})))"
        bare = {name: value for name, value in self.environment().items() if name != "PYTHONPATH"}
        for folder, environment in ((Path("/"), self.environment()), (self.tree, bare)):
            words = [sys.executable, "-c", look]
            found = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            wrong = [path for path in found.stdout.split() if not Path(path).is_relative_to(self.tree)]
            if wrong:
                raise SystemExit(f"the copy's code is not the one that is imported: {wrong}")

    def environment(self) -> dict[str, str]:
        """Give the environment of the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEATRIAL_")}
        own = {"PYTHONPATH": str(self.tree), "TMPDIR": str(self.folder), "SEATRIAL_CHAOS_PATIENCE": str(self.patience)}
        return kept | own

    @contextmanager
    def without(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Take a defence out for a while."""
        before: dict[Path, bytes] = {}
        try:
            for edit in edits:
                path = self.tree / edit.file
                text = path.read_text("utf-8")
                if text.count(edit.old) != 1:
                    raise SystemExit(f"{edit.file} has this {text.count(edit.old)} times, not once:\n{edit.old}")
                before.setdefault(path, path.read_bytes())
                path.write_text(text.replace(edit.old, edit.new), "utf-8")
            yield
        finally:
            for path, data in before.items():
                path.write_bytes(data)

    def run(self, tests: Sequence[str]) -> dict[str, Seen]:
        """Run tests in one process; tell how each ended."""
        report, printed = self.folder / "report.xml", self.folder / "printed.txt"
        report.unlink(missing_ok=True)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"]
        words += [f"--basetemp={self.folder / 'pytest'}", f"--junitxml={report}", *tests]
        with printed.open("wb") as log:
            process = subprocess.Popen(
                words, cwd=self.tree, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            process.wait(len(tests) * TEST_SECONDS + 120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            self._clear()
        found = dict(_outcomes(report)) if report.exists() else {}
        hung = (
            Seen("hung: it does not bound its wait", "") if not report.exists() else Seen("there is no such test", "")
        )
        return {test: found.get(test, hung) for test in tests}

    def _clear(self) -> None:
        """End and remove what a test left behind that was ended, or that could not clean up without the defence."""
        mark = str(self.folder)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told = " ".join(process.cmdline())
                if process.pid != os.getpid() and (mark in told or process.environ().get("TMPDIR") == mark):
                    process.kill()
        client = docker.from_env()
        for one in client.api.containers(all=True, filters={"label": "seatrial.installation"}):
            if any(mount.get("Source", "").startswith(f"{mark}/") for mount in one["Mounts"]):
                with suppress(docker.errors.APIError):
                    client.api.remove_container(one["Id"], v=True, force=True)
        client.close()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{mark}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        for left in self.folder.iterdir():
            if left.name not in ("tree", "report.xml", "printed.txt"):
                shutil.rmtree(left, ignore_errors=True)


def _outcomes(report: Path) -> Iterator[tuple[str, Seen]]:
    """Read how each test ended, and what it said. One that failed may also have broken afterwards."""
    kinds: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        node = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        found = kinds.setdefault(node, {})
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                found[child.tag] = " ".join((child.get("message") or "").split())
    for node, found in kinds.items():
        if "failure" in found:
            yield node, Seen(FAILED, found["failure"])
        elif found:
            [(kind, said), *_] = found.items()
            yield node, Seen(f"no verdict ({kind}): {said}")
        else:
            yield node, Seen(PASSED)


def digest(defence: Defence) -> str:
    """Tell an entry from what it was, so that an old result does not count for it."""
    return hashlib.sha256(repr(defence).encode()).hexdigest()[:16]


def try_all(copy: Copy, defences: Sequence[Defence], results: Path, *, untouched: bool) -> None:
    """Try one after the other, and keep each result at once."""
    kept = load(results)
    tests = sorted({defence.test for defence in defences})
    well = copy.run(tests) if untouched and tests else {}
    for test, seen in well.items():
        if seen.outcome != PASSED:
            print(f"untouched, {test} is no test to try: {seen.outcome} {seen.how}", flush=True)
    for defence in defences:
        before = well.get(defence.test)
        if before is not None and before.outcome != PASSED:
            seen, began = Seen(f"untouched: {before.outcome}", before.how), time.monotonic()
        else:
            began = time.monotonic()
            with copy.without(defence.edits):
                [seen] = copy.run([defence.test]).values()
            if seen.outcome != FAILED:
                shutil.copy(copy.folder / "printed.txt", results.with_suffix(f".{defence.row}.txt"))
        kept[defence.key] = {
            "digest": digest(defence),
            "fails": seen.outcome == FAILED,
            "how": seen.how if seen.outcome == FAILED else f"{seen.outcome} {seen.how}".strip(),
            "seconds": round(time.monotonic() - began),
        }
        results.write_text(json.dumps(kept, indent=1, sort_keys=True), "utf-8")
        print(line(defence, kept), flush=True)


def load(results: Path) -> dict[str, dict[str, object]]:
    """Read what was seen before of the entries as they are now."""
    kept = json.loads(results.read_text("utf-8")) if results.exists() else {}
    known = {defence.key: digest(defence) for defence in DEFENCES}
    return {key: one for key, one in kept.items() if known.get(key) == one["digest"]}


def line(defence: Defence, kept: dict[str, dict[str, object]]) -> str:
    """Tell one result: row, defence, where it was taken out, whether its test fails without it, how."""
    one = kept[defence.key]
    where = ", ".join(dict.fromkeys(edit.file for edit in defence.edits))
    fails = "yes" if one["fails"] else "NO"
    return (
        f"{defence.row:4} {defence.words:66.66} {where:34.34} {fails:4} {one['seconds']:>4} s  {str(one['how'])[:120]}"
    )


def table(kept: dict[str, dict[str, object]]) -> str:
    """Give the table of docs/reliability.md."""
    rows = ["| what guards it | taken out of | its test | without it |", "|---|---|---|---|"]
    for defence in DEFENCES:
        files = ", ".join(f"`{file}`" for file in dict.fromkeys(edit.file for edit in defence.edits))
        file, _, test = defence.test.partition("::")
        fails = "fails" if kept[defence.key]["fails"] else "**passes**"
        rows.append(f"| {defence.row}: {defence.words} | {files} | `{file}` `{test}` | {fails} |")
    return "\n".join(rows)


def write(kept: dict[str, dict[str, object]]) -> None:
    """Put the table between its markers."""
    before, begin, rest = PAGE.read_text("utf-8").partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has no {BEGIN} … {END}")
    PAGE.write_text(f"{before}{begin}{table(kept)}\n{end}{after}", "utf-8")


def main() -> int:
    """Try the rows that are named, else all that have no result yet; exit code 1 when a test passes without its defence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="try these anew (default: all without a result)")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "seatrial-defences.json")
    parser.add_argument("--fresh", action="store_true", help="forget the results that there are")
    parser.add_argument("--skip-untouched", action="store_true", help="do not see first that the tests pass")
    parser.add_argument("--working", action="store_true", help="copy the work tree as it stands, not its last commit")
    asked = parser.parse_args()
    unknown = set(asked.rows) - {defence.row for defence in DEFENCES}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if asked.fresh:
        asked.results.unlink(missing_ok=True)
    kept = load(asked.results)
    chosen = [one for one in DEFENCES if (one.row in asked.rows if asked.rows else one.key not in kept)]
    # Short: the sockets of the tests lie below it.
    folder = Path(tempfile.mkdtemp(prefix="sd-"))
    folder.chmod(0o755)
    try:
        try_all(Copy(folder, working=asked.working), chosen, asked.results, untouched=not asked.skip_untouched)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = load(asked.results)
    if all(defence.key in kept for defence in DEFENCES):
        write(kept)
        print("\n".join(line(defence, kept) for defence in DEFENCES))
    passing = sorted({one.row for one in (chosen or DEFENCES) if not kept[one.key]["fails"]})
    if passing:
        print(f"not seen to fail without its defence: {', '.join(passing)}")
    return 1 if passing else 0


if __name__ == "__main__":
    raise SystemExit(main())
