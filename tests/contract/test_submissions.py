"""Many who submit at once, each in a process of its own: every run is there, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hands import Hands

PROCESSES, THREADS, EACH = 4, 5, 25
SUBMIT = """
import sys
sys.path.insert(0, sys.argv[1])
from concurrent.futures import ThreadPoolExecutor
from hands import Hands
from jobs.adapters.sql_store import Store

hands = Hands(Store.open(sys.argv[2]))
number, threads, each = map(int, sys.argv[3:])
print("ready", flush=True)
sys.stdin.readline()


def submit(one):
    run, new = hands.store.runs.add(hands.new(f"client {number}"), key=f"{number}-{one}", body="the same")
    return run.id


with ThreadPoolExecutor(threads) as pool:
    print(*pool.map(submit, range(each)))
"""


def test_a01_processes_that_submit_at_once(shared_hands: Hands) -> None:
    url = shared_hands.store.database.engine.url.render_as_string(hide_password=False)
    tests = str(Path(__file__).parents[1])
    words = [sys.executable, "-c", SUBMIT, tests, url]
    pipe = subprocess.PIPE
    clients = [
        subprocess.Popen([*words, *map(str, (number, THREADS, EACH))], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for number in range(PROCESSES)
    ]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n", client.communicate(timeout=30)
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
    told = [client.communicate(timeout=120) for client in clients]
    assert [error for _, error in told] == [""] * PROCESSES
    ids = [int(word) for out, _ in told for word in out.split()]
    assert len(set(ids)) == len(ids) == PROCESSES * EACH
    assert all(len(shared_hands.tasks(run)) == 1 for run in ids)
