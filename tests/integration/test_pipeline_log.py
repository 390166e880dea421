"""The log: every byte, no more than its limit, and what Seatrial itself has to say in lines of its own."""

from __future__ import annotations

import gc
import hashlib
import re

import psutil
from fixtures_bench import BASE, GATE, Bench, MemoryRecorder

from runner.model import UnitState
from runner.traces import LOG_READ


def printed(recorder: MemoryRecorder) -> bytes:
    """Give what the script printed, without what Seatrial said around it."""
    text = bytes(recorder.text)
    return text[text.index("── run\n".encode()) + len("── run\n".encode()) : text.rindex("── run ended".encode())]


def test_bytes_of_any_kind_are_kept_exactly(bench: Bench) -> None:
    (bench.tree / "all.bin").write_bytes(bytes(range(256)) * 64 + b"\rbar\rbar\r\n" + b"\xff\xfe no newline at the end")
    outcome, recorder = bench.verify("run: cat all.bin")
    assert outcome.code == "done"
    assert printed(recorder) == (bench.tree / "all.bin").read_bytes() + b"\n", "a line that was left open is ended"


def test_stdout_and_stderr_keep_their_order(bench: Bench) -> None:
    _, recorder = bench.verify("run: 'for i in 1 2 3; do echo out $i; echo err $i >&2; done'")
    assert printed(recorder) == b"".join(b"out %d\nerr %d\n" % (i, i) for i in (1, 2, 3))


class Counting(MemoryRecorder):
    """A recorder that keeps no bytes: only how many they were, and their digest, lines of the wrapper left out."""

    def __init__(self, units: dict[str, UnitState]) -> None:
        super().__init__(units)
        self.size, self.digest, self.largest = 0, hashlib.sha256(), 0

    def log(self, data: bytes, *, source: tuple[int, int] | None = None) -> None:
        if source is not None:
            data = re.sub("── run.*\n".encode(), b"", data)
            self.size += len(data)
            self.largest = max(self.largest, len(data))
            self.digest.update(data)


def test_a05_a_line_of_50_mb_costs_no_memory(bench: Bench) -> None:
    order = bench.order("run: head -c 50000000 /dev/zero | tr '\\0' x")
    recorder = Counting(bench.recorder(order).units)
    me = psutil.Process()
    gc.collect()
    before = me.memory_info().rss
    highest = before
    running = bench.begin(order, recorder)

    def looked() -> bool:
        nonlocal highest
        highest = max(highest, me.memory_info().rss)
        return bool(recorder.executions.get(1, ("", 0))[0] == "ended")

    running.wait_for(looked)
    assert running.end().code == "done"
    assert recorder.size == 50_000_001
    assert recorder.digest.hexdigest() == hashlib.sha256(b"x" * 50_000_000 + b"\n").hexdigest()
    assert recorder.largest <= LOG_READ, "it is read in pieces, however long it is"
    # Read whole it would be there twice at least; what else is in this process comes and goes.
    assert highest - before < 90 << 20, f"{(highest - before) >> 20} MiB"


def test_a_log_beyond_its_limit_is_cut_and_says_by_how_much(bench: Bench) -> None:
    spec = f"""
run: yes 0123456789abcdef
workspace: {{image: '{BASE}', limits: {{log: 1m, file: 64m}}}}
"""
    outcome, recorder = bench.verify(spec)
    assert outcome.code == "limit_exceeded"
    assert "limits.log, 1 MiB" in outcome.why
    assert bytes(recorder.text).count(b"0123456789abcdef\n") == ((1 << 20) - len("── run\n".encode())) // 17
    assert "the log was cut at limits.log, 1 MiB" in recorder.said()
    assert "bytes are left out" in recorder.said()
    assert bench.left_over() == []


def test_a_short_script_that_prints_beyond_the_limit_is_no_success(bench: Bench) -> None:
    spec = f"run: head -c 100000 /dev/zero\nworkspace: {{image: '{BASE}', limits: {{log: 64k}}}}"
    outcome, recorder = bench.verify(spec)
    assert outcome.code == "limit_exceeded"
    head = len("── run\n".encode())
    assert recorder.text.count(b"\0") == 65_536 - head
    assert re.search("34,[45][0-9][0-9] bytes are left out", recorder.said())


def test_a_log_that_is_truncated_says_so_and_goes_on(bench: Bench) -> None:
    script = f"run: 'seq 1 1000; {GATE}; : > /seatrial/io/log; sleep 0.5; echo after'"
    outcome, recorder = bench.verify_gated(script, lambda recorder: "\n1000\n" in recorder.said())
    assert outcome.code == "done"
    assert "1000\n" in recorder.said()
    assert "log: the file was truncated by the branch" in recorder.said()
    assert "after\n" in recorder.said()


def test_what_a_background_process_prints_last_is_kept(bench: Bench) -> None:
    _, recorder = bench.verify("run: '(trap \"\" TERM; i=0; while :; do i=$((i+1)); echo $i; done) & sleep 0.3'")
    lines = [int(line) for line in recorder.said().splitlines() if line.isdigit()]
    assert lines == list(range(1, len(lines) + 1))
    assert bench.left_over() == []


def test_a_million_lines_arrive_in_order(bench: Bench) -> None:
    order = bench.order("run: seq 1 1000000")
    recorder = Counting(bench.recorder(order).units)
    assert bench.run(order, recorder).code == "done"
    assert recorder.digest.hexdigest() == hashlib.sha256(b"".join(b"%d\n" % i for i in range(1, 1_000_001))).hexdigest()
