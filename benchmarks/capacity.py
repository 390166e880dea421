"""Machines that start and stop by the work there is: what that costs against the bound, and how long a decision takes.

SEATRIAL_BENCH_TRACES: more trace files to simulate, divided as in PATH.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from benchmarks.arrivals import weeks
from benchmarks.ledger import new_run
from benchmarks.measure import Row, percentile, timed
from jobs.adapters.sql_store import Store
from jobs.capacity import decide
from jobs.machines import Action, MachineState, PoolNow
from jobs.pool_policy import policy_of
from jobs.pool_settings import PoolSettings
from jobs.simulate import OWN, Score, Week, compare, usual
from jobs.traces import read_trace
from runner.model import Prepared

HERE = Path(__file__).parent.parent
TRACES = HERE / "examples" / "traces"
COST, WAIT = 1.05, 15.0
RATES, SEEDS = (0.3, 1.0, 3.0), range(1_001, 1_021)
MACHINES, QUEUED = 1_000, 10_000
PASS_MS = 100
ROUNDS = 5
POOL = "ec2"
POLICY = policy_of(PoolSettings(provider="ec2", region="eu-central-1", account="123456789012"), lease=5.0)


def rows(root: Path) -> Iterator[Row]:
    """Measure."""
    more = [Path(path) for path in os.environ.get("SEATRIAL_BENCH_TRACES", "").split(os.pathsep) if path]
    for file in [*sorted(TRACES.glob("*.csv")), *more]:
        yield _simulated(f"default policy on {file.stem}", read_trace(file))
    for rate in RATES:
        yield _unseen(rate)
    yield from _passes(root)
    yield from _calls()


def _simulated(work: str, trace: Sequence[Week]) -> Row:
    scores = {score.name: score for score in compare(trace, usual(POLICY))}
    mine = scores.pop(OWN)
    others = ("always on", "stopped at night", "fixed 30 min", "break-even, pre-warmed")
    told = "; ".join(f"{name} {scores[name].ratio:.2f}× at {scores[name].wait:.0f} s" for name in others)
    return Row(work, "clairvoyant bound", _told(mine.ratio, mine.wait), _AIM, _meets(mine), told)


def _unseen(rate: float) -> Row:
    """Simulate arrivals by other seeds; the median of them is told."""
    found = [compare(weeks(rate, seed), {OWN: POLICY})[1] for seed in SEEDS]
    cost = statistics.median(score.ratio for score in found)
    wait = statistics.median(score.wait for score in found)
    worst = _told(max(score.ratio for score in found), max(score.wait for score in found))
    kept = sum(map(_meets, found))
    work = f"default policy on {len(SEEDS)} unseen traces, {rate:g} runs an hour"
    detail = f"{kept} of {len(SEEDS)} meet the aim, the worst have {worst}"
    return Row(work, "clairvoyant bound", _told(cost, wait), _AIM, cost <= COST and wait <= WAIT, detail)


def _passes(root: Path) -> Iterator[Row]:
    store = Store.open(f"sqlite:///{root}/capacity.db")
    _fill(store)
    policy = replace(POLICY, max_running=MACHINES)
    pools: list[PoolNow] = []

    def read() -> None:
        pools.append(store.machines.now(POOL))

    read()
    policy_now = store.machines.time() + timedelta(seconds=1)
    found = decide(pools[0], policy, policy_now)
    assert sum(one.action is Action.START for one in found) == MACHINES // 2

    def decided() -> None:
        decide(pools[-1], policy, policy_now)

    def both() -> None:
        read()
        decided()

    for work, call, rounds in (("decision", decided, 31), ("facts and decision", both, 11)):
        begun = time.process_time()
        times = [timed(call) for _ in range(rounds)]
        processor = 1_000 * (time.process_time() - begun) / rounds
        middle, worst = (1_000 * percentile(times, part) for part in (0.5, 0.95))
        yield Row(
            f"{work} on {MACHINES:,} machines and {QUEUED:,} queued tasks",
            "",
            f"p50 {middle:.1f} ms",
            f"< {PASS_MS} ms",
            middle < PASS_MS,
            f"p95 {worst:.1f} ms; {processor:.1f} ms of a processor's time",
        )


def _calls() -> Iterator[Row]:
    """Have the pool's whole life told by its own test: a moto server over HTTP, and a process as the machine."""
    started: list[float] = []
    stopped: list[float] = []
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-k", "the_figures", "tests/chaos/test_capacity.py"]
        told = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout
        found = re.search(r"StartInstances ([\d.]+) s, end to StopInstances ([\d.]+) s \(policy ([\d.]+) s\)", told)
        assert found is not None, told
        started.append(float(found[1]))
        stopped.append(float(found[2]) - float(found[3]))
    for work, times, aim in (
        ("from submit to StartInstances", started, 2.0),
        ("from the queue is empty to StopInstances, over the policy's time", stopped, 15.0),
    ):
        middle, worst = statistics.median(times), max(times)
        detail = f"median of {ROUNDS}; the longest {worst:.2f} s"
        yield Row(work, "", f"{middle:.2f} s", f"≤ {aim:g} s", worst <= aim, detail)


def _fill(store: Store) -> None:
    """Make machines, half of them running, and a run with many tasks."""
    for number in range(MACHINES):
        state = MachineState.RUNNING if number % 2 else MachineState.STOPPED
        instance = f"i-{number:017x}"
        store.machines.register(instance, host=f"host-{number}", pool=POOL)
        store.machines.upsert(instance, pool=POOL, state=state)
    store.runs.add(replace(new_run(), pool=POOL), key=None, body="")
    claim = store.tasks.claim(pool=POOL, host="h", worker="w", lease=600)
    assert claim is not None
    names = tuple(f"unit_{number:05}" for number in range(QUEUED))
    store.plan.prepared(claim.task.id, 1, Prepared("i", "d", names), lambda units: [(unit,) for unit in units])


def _told(cost: float, wait: float) -> str:
    return f"{cost:.3f}× at {wait:.1f} s"


def _meets(score: Score) -> bool:
    return score.ratio <= COST and score.wait <= WAIT


_AIM = f"≤ {COST:g}× at ≤ {WAIT:g} s"
