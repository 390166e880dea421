"""Compare runs on a test site: outputs of both legs as given, compared by the real comparer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from web_site import SPEC, Site

from jobs.comparer import Comparer
from jobs.run import Run, TaskState
from runner.model import BASELINE_AGAIN, TaskKind, UnitResult, UnitState

RULES = """compare:
  rules:
    - {match: "*/cash", key: [account], tolerance: {absolute: 0.005}}
    - {match: "*", key: [account]}
"""

# What a leg makes of a unit: bytes, files, or the text with which it fails.
Made = bytes | Mapping[str, bytes] | str


def with_rules(site: Site) -> None:
    """Give the candidate branch of the project rules to compare by."""
    remote = site.remotes["accounts"]
    files = {"seatrial.yml": SPEC + RULES.encode(), "b": b"1"}
    head = remote.commit(files, "Round half to even in the ledger", "Mio Tanaka", remote.refs["refs/tags/v2.41.0"])
    remote.set("refs/heads/feature/rounding", head)


def begin(site: Site, baseline: Sequence[str], candidate: Sequence[str], **more: object) -> Run:
    """Submit a compare run and do the preparations of both legs."""
    run = site.submit(options={"compare": True}, **more)
    lists = {"baseline": baseline, "candidate": candidate}
    for _ in lists:
        queued = [one for one in site.service.tasks(run.id) if one.state is TaskState.QUEUED]
        task = min((one for one in queued if one.kind is TaskKind.PREPARE), key=lambda one: one.id)
        site.prepare(lists[task.leg], batches=1)
    return run


def compare_now(site: Site) -> None:
    """Compare what is ready, as the comparer's process does."""
    comparer = Comparer(site.store, site.objects, site.root / "spool")
    (site.root / "spool").mkdir(exist_ok=True)
    try:
        while comparer.pass_once():
            pass
    finally:
        comparer._child.close()


def finish(site: Site, made: Mapping[str, Mapping[str, Made]], seconds: Mapping[str, float] | None = None) -> None:
    """Run the batches of both legs to their ends; `made`: by leg and unit."""
    for _ in made:
        claim = site.claim()
        mine = made[claim.task.leg]
        results = []
        for unit in claim.units:
            took = (seconds or {}).get(f"{claim.task.leg}:{unit}", 2.5)
            what = mine[unit]
            if isinstance(what, str):
                results.append(UnitResult(unit, UnitState.FAILED, None, what, took))
                continue
            name = f"{unit.rsplit('/', 1)[-1]}.csv"
            output = site.output(what, name) if isinstance(what, bytes) else site.tree(dict(what), unit)
            results.append(UnitResult(unit, UnitState.DONE, output, "", took))
        site.store.ledger.mark(claim.task.id, claim.task.attempt, results, None)
        site.log(claim, b"exported\n")
        site.end(claim)


def compared(
    site: Site, baseline: Mapping[str, Made], candidate: Mapping[str, Made], seconds: Mapping[str, float] | None = None
) -> Run:
    """Submit a compare run, run it and compare it."""
    run = begin(site, list(baseline), list(candidate))
    finish(site, {"baseline": baseline, "candidate": candidate}, seconds)
    compare_now(site)
    return site.service.run(run.id)


def table(*rows: tuple[object, ...], head: str = "account,month,amount") -> bytes:
    """Write a small CSV."""
    return "".join(f"{line}\n" for line in (head, *(",".join(map(str, row)) for row in rows))).encode()


def ledger(amounts: Mapping[int, str] | None = None, rows: int = 40, start: int = 4000) -> bytes:
    """Write a ledger in which some accounts have an amount of their own."""
    amounts = amounts or {}
    return table(*((n, "2026-11", amounts.get(n, f"{n * 1.25:.2f}")) for n in range(start, start + rows)))


def every_class() -> tuple[dict[str, Made], dict[str, Made]]:
    """Give the outputs of both legs so that each class there is occurs."""
    baseline: dict[str, Made] = {}
    candidate: dict[str, Made] = {}
    reports = ("bs", "cash", "pl", "tax", "aging", "vat")
    for tenant in range(1, 19):
        for at, report in enumerate(reports):
            unit = f"tenant_{tenant:03}/{report}"
            baseline[unit] = candidate[unit] = ledger(start=4000 + tenant * 10 + at)
            if report == "cash":
                candidate[unit] = ledger(
                    {4001 + tenant * 10: f"{(4001 + tenant * 10) * 1.25 + 0.003:.3f}"}, start=4000 + tenant * 10 + at
                )
            if report == "pl" and tenant % 3:
                first = 4000 + tenant * 10 + at
                changed = {n: f"{n * 1.25 * 1.005:.2f}" for n in range(first, first + 5 + tenant)}
                candidate[unit] = ledger(changed, start=first)
    candidate["tenant_003/tax"] = "KeyError: tax_code (ledger.rb:42)"
    baseline["tenant_004/tax"] = "timeout after 600 s"
    baseline["tenant_005/tax"] = candidate["tenant_005/tax"] = "no such account 9999"
    del candidate["tenant_006/vat"]
    candidate["tenant_007/notes"] = ledger()
    baseline["tenant_008/bs"] = ledger({4080: "=1+1"}, start=4080)
    candidate["tenant_008/bs"] = ledger({4080: "<b>n/a</b>"}, rows=42, start=4080) + b"9999,2026-12,-12.5\n"
    baseline["tenant_009/bs"] = {"a.csv": ledger(), "b/c.csv": ledger(), "old.csv": b"x\n"}
    candidate["tenant_009/bs"] = {"a.csv": ledger({4001: "0"}), "b/c.csv": ledger(), "new.csv": b"x\n"}
    return baseline, candidate


HEAD = "account,amount,generated_at"


def run_twice(site: Site, made: Mapping[str, Mapping[str, Made]]) -> Run:
    """Run a compare run whose baseline runs twice; `made`: by leg and unit."""
    run = site.submit(options={"compare": True, "noise": 2, "reuse": False})
    for _ in made:
        queued = [one for one in site.service.tasks(run.id) if one.state is TaskState.QUEUED]
        task = min((one for one in queued if one.kind is TaskKind.PREPARE), key=lambda one: one.id)
        site.prepare(list(made[task.leg]), batches=1)
    finish(site, made)
    compare_now(site)
    return site.service.run(run.id)


def stamped(at: str, amount: str = "5") -> bytes:
    return table((4000, amount, at), (4001, "7", at), head=HEAD)


def outputs(*, real: bool) -> dict[str, dict[str, Made]]:
    """Give a stable unit, one with a column that moves, one that is another file each time, and (`real`) a difference."""
    found: dict[str, dict[str, Made]] = {}
    for leg, at in (("baseline", "10:00"), (BASELINE_AGAIN, "10:01"), ("candidate", "10:07")):
        found[leg] = {
            "a/pl": ledger(),
            "b/stamped": stamped(at),
            "c/log": {"made.txt": f"made at {at}".encode()},
            "d/mixed": stamped(at, "6" if real and leg == "candidate" else "5"),
        }
    return found
