"""What branch code may write into its checkpoint file and output directory, and what it makes of it."""

from __future__ import annotations

import pytest
from fixtures_bench import GATE, Bench, MemoryRecorder

from runner.model import UnitState

HEAD = "O=$SEATRIAL_OUTPUT; C=$SEATRIAL_CHECKPOINT\n"


def script(units: str, *lines: str) -> str:
    return f"units: [{units}]\nrun: |\n" + "".join(f"  {line}\n" for line in (HEAD.strip(), *lines))


def a_is_done(recorder: MemoryRecorder) -> bool:
    return recorder.units["a"] is UnitState.DONE


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("echo nobody >> $C", "no such unit in SEATRIAL_UNITS: 'nobody'"),
        ("echo a >> $C", "marked twice: 'a'"),
        ("printf 'b' >> $C", "the last line has no newline and does not count: 'b'"),
        ("printf 'a\\0b\\n' >> $C", "a line holds NUL bytes: 'a\\x00b'"),
        ("printf '\\377\\n' >> $C", "a line is not UTF-8: '\\\\xff'"),
        ("printf 'a\\tperhaps\\n' >> $C", "after a unit comes nothing or `failed`: 'a\\tperhaps'"),
        ("head -c 100000 /dev/zero | tr '\\0' x >> $C; echo >> $C", "a line of more than 65,536 bytes was left out"),
        ("printf '\\n\\n\\r\\n' >> $C", ""),
    ],
)
def test_bad_marks_are_named_and_lose_nothing(bench: Bench, line: str, named: str) -> None:
    outcome, recorder = bench.verify(
        script("a, b", "echo 1 > $O/a.csv; echo a >> $C", "echo 2 > $O/b.csv; printf 'b\\r\\n' >> $C", line),
        ("a", "b"),
    )
    assert outcome.code == "done", outcome.why
    assert set(recorder.units.values()) == {UnitState.DONE}
    assert named in recorder.said()
    assert ("checkpoint:" in recorder.said()) == bool(named)


def test_200_mb_of_wrong_marks_leave_the_worker_alive(bench: Bench) -> None:
    outcome, recorder = bench.verify(
        script(
            "a, b",
            "echo 1 > $O/a.csv; echo a >> $C",
            "yes this-unit-does-not-exist-and-is-repeated-many-times-over-and-over-again | head -c 200000000 >> $C",
            "echo >> $C; echo 2 > $O/b.csv; echo b >> $C",
        ),
        ("a", "b"),
    )
    assert outcome.code == "done", outcome.why
    said = recorder.said()
    assert said.count("no such unit") == 20
    assert "lines are wrong in all" in said


def test_a_mark_without_an_output_does_not_count(bench: Bench) -> None:
    outcome, recorder = bench.verify(script("a, b", "echo a >> $C", "echo 2 > $O/b.csv; echo b >> $C"), ("a", "b"))
    assert outcome.code == "incomplete"
    assert recorder.units == {"a": UnitState.TODO, "b": UnitState.DONE}
    assert "a is marked, but it has no output; the mark does not count" in recorder.said()


def test_a_mark_without_an_output_can_be_made_good(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script("a", "echo a >> $C", GATE, "echo 1 > $O/a.csv; echo a >> $C"),
        lambda recorder: "the mark does not count" in recorder.said(),
        ("a",),
    )
    assert outcome.code == "done"
    assert bench.bytes_of(recorder.results["a"]) == b"1\n"


def test_an_output_that_changes_after_its_mark_voids_it_and_the_unit_runs_again(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script(
            "a, b",
            "while read -r u; do echo $u > $O/$u.csv; echo $u >> $C; done < $SEATRIAL_UNITS",
            GATE,
            "[ $(wc -l < $SEATRIAL_UNITS) = 1 ] || echo more >> $O/a.csv",
        ),
        a_is_done,
        ("a", "b"),
    )
    assert outcome.code == "done", outcome.why
    assert recorder.voided == [("a", "its output was changed after its mark")]
    assert bench.bytes_of(recorder.results["a"]) == b"a\n"
    assert recorder.executions == {1: ("ended", 0), 2: ("ended", 0)}
    assert "a: its output was changed after its mark, so the mark is void" in recorder.said()


def test_a_change_of_the_same_size_within_a_clock_tick_is_seen(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script("a", "echo 1 > $O/a.csv; echo a >> $C", GATE, "echo 2 > $O/a.csv"), a_is_done, ("a",)
    )
    assert outcome.code == "incomplete"
    assert len(recorder.voided) == 3
    assert "exit code 0 3 times" in outcome.why


def test_a_file_that_is_touched_but_not_changed_keeps_its_mark(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script("a", "echo 1 > $O/a.csv; echo a >> $C", GATE, "touch $O/a.csv"), a_is_done, ("a",)
    )
    assert outcome.code == "done"
    assert recorder.voided == []


def test_an_output_that_is_taken_away_voids_its_mark(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script("a", "echo 1 > $O/a.csv; echo a >> $C", GATE, "rm $O/a.csv"), a_is_done, ("a",)
    )
    assert outcome.code == "incomplete"
    assert recorder.voided


def test_a_checkpoint_that_is_truncated_keeps_what_was_marked(bench: Bench) -> None:
    again = f"rm /seatrial/io/go; : > $C; {GATE}"
    order = bench.order(
        script("a, b", "echo 1 > $O/a.csv; echo a >> $C", GATE, again, "echo 2 > $O/b.csv; echo b >> $C"), ("a", "b")
    )
    recorder = bench.recorder(order)
    running = bench.begin(order, recorder)
    running.wait_for(lambda: a_is_done(recorder))
    bench.open_gate()
    running.wait_for("checkpoint: the file was truncated by the branch")
    bench.open_gate()
    outcome = running.end()
    assert outcome.code == "done", outcome.why
    assert recorder.units == {"a": UnitState.DONE, "b": UnitState.DONE}


def test_a_checkpoint_that_is_written_anew_beside_and_moved_is_read(bench: Bench) -> None:
    outcome, recorder = bench.verify_gated(
        script(
            "a, b",
            "echo 1 > $O/a.csv; echo a >> $C",
            GATE,
            "echo 2 > $O/b.csv; { cat $C; echo b; } > $C.new; mv $C.new $C",
        ),
        a_is_done,
        ("a", "b"),
    )
    assert outcome.code == "done", outcome.why
    assert "put another file in its place" in recorder.said()


@pytest.mark.parametrize(
    ("write", "word"),
    [
        ("ln -s /etc/passwd $O/a.csv", "a symbolic link"),
        ("mkfifo $O/a.csv", "a FIFO"),
        ("mkdir $O/a.csv", "a directory"),
        ("echo 1 > $O/a.csv; echo 2 > $O/a.json", "several outputs of a: a.csv, a.json"),
        ("python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/seatrial/output/a.csv')\"", "a socket"),
        ("truncate -s 2G $O/a.csv", "2,147,483,648 bytes; limits.file is 1,073,741,824"),
    ],
)
def test_an_output_that_cannot_be_one_fails_its_unit(bench: Bench, write: str, word: str) -> None:
    spec = script("a, b", write, "echo a >> $C; echo 2 > $O/b.csv; echo b >> $C")
    spec += "workspace: {image: 'seatrial/base:bookworm', limits: {file: 1g, log: 4g}}\n"
    outcome, recorder = bench.verify(spec, ("a", "b"))
    assert outcome.code == "units_failed"
    assert recorder.units == {"a": UnitState.FAILED, "b": UnitState.DONE}
    assert word in recorder.results["a"].text


def test_no_device_can_be_made(bench: Bench) -> None:
    outcome, recorder = bench.verify(script("a", "mknod $O/a.csv c 1 3; echo a >> $C"), ("a",))
    assert outcome.code == "incomplete"
    assert "Operation not permitted" in recorder.said()


def test_a_directory_on_the_way_that_is_a_link_leads_nowhere(bench: Bench) -> None:
    outcome, recorder = bench.verify(script("etc/passwd", "ln -s / $O/etc; echo etc/passwd >> $C"), ("etc/passwd",))
    assert outcome.code == "units_failed"
    assert "symbolic link" in recorder.results["etc/passwd"].text


def test_units_whose_names_extend_each_other_keep_their_own_outputs(bench: Bench) -> None:
    units = ("a", "a.b", "a.b.c", "a.d/e")
    outcome, recorder = bench.verify(
        script(
            ", ".join(units), "mkdir $O/a.d",
            *[f"echo 'of {unit}' > $O/{unit}.csv; echo {unit} >> $C" for unit in reversed(units)],
        ),
        units,
    )  # fmt: skip
    assert outcome.code == "done", outcome.why
    assert {unit: bench.bytes_of(found) for unit, found in recorder.results.items()} == {
        unit: f"of {unit}\n".encode() for unit in units
    }


def test_an_output_of_2_gb_is_taken(bench: Bench) -> None:
    outcome, recorder = bench.verify(script("a", "truncate -s 2G $O/a.bin; echo a >> $C"), ("a",))
    assert outcome.code == "done", outcome.why
    output = recorder.results["a"].output
    assert output is not None
    assert output.size == 2 << 30


# ---- a script without units -------------------------------------------------------------------------------

OPAQUE = """
run: |
  mkdir -p $SEATRIAL_OUTPUT/deep; echo one > $SEATRIAL_OUTPUT/deep/1.txt; echo chapter-1 >> $SEATRIAL_CHECKPOINT
  sleep 0.2; echo half > $SEATRIAL_OUTPUT/2.txt; echo 'chapter 2 of 3' >> $SEATRIAL_CHECKPOINT; exit 75
resume: |
  echo "from $SEATRIAL_RESUME_FROM"; cat $SEATRIAL_OUTPUT/deep/1.txt; echo three >> $SEATRIAL_OUTPUT/deep/1.txt
"""


def test_a_script_without_units_keeps_token_and_outputs_and_goes_on(bench: Bench) -> None:
    order = bench.order(OPAQUE)
    recorder = bench.recorder(order)
    assert bench.run(order, recorder).code == "resume_requested"
    assert recorder.tokens[-1] == "chapter 2 of 3"
    assert recorder.resume is not None
    outcome = bench.run(bench.again(order, recorder), recorder)
    assert outcome.code == "done", outcome.why
    assert "from chapter 2 of 3\none\n" in recorder.said()
    manifest = bench.bytes_of(recorder.results["all"]).decode()
    assert '"2.txt"' in manifest
    assert '"deep/1.txt"' in manifest
    assert recorder.results["all"].output is not None
    assert recorder.results["all"].output.tree
    assert bench.left_over() == []


def test_a_script_without_units_that_fails_keeps_where_it_was(bench: Bench) -> None:
    order = bench.order(OPAQUE.replace("exit 75", "exit 1"))
    recorder = bench.recorder(order)
    outcome = bench.run(order, recorder)
    assert outcome.code == "units_failed"
    assert recorder.units == {"all": UnitState.FAILED}
    assert recorder.resume is not None
    assert recorder.resume[0] == "chapter 2 of 3"


@pytest.mark.parametrize(
    ("write", "word"),
    [
        ("ln -s /etc/shadow $SEATRIAL_OUTPUT/x", "symbolic link"),
        ("mkfifo $SEATRIAL_OUTPUT/x", "FIFO"),
        (
            "cd $SEATRIAL_OUTPUT; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done; echo > f",
            "levels deep",
        ),
    ],
)
def test_a_whole_output_that_cannot_be_kept_is_refused(bench: Bench, write: str, word: str) -> None:
    outcome, recorder = bench.verify(f"run: |\n  {write}\n")
    assert outcome.code == "output_refused"
    assert word in outcome.why
    assert recorder.units == {"all": UnitState.FAILED}
    assert bench.left_over() == []


def test_a_resume_point_that_cannot_be_kept_is_named_and_no_verdict(bench: Bench) -> None:
    outcome, recorder = bench.verify("run: 'mkfifo $SEATRIAL_OUTPUT/x; echo t >> $SEATRIAL_CHECKPOINT; exit 75'")
    assert outcome.code == "resume_requested"
    assert recorder.resume is None
    assert "the resume point cannot be kept: x is a FIFO" in recorder.said()


def test_a_script_without_units_and_without_outputs_is_done(bench: Bench) -> None:
    outcome, recorder = bench.verify("run: 'true'")
    assert outcome.code == "done"
    assert bench.bytes_of(recorder.results["all"]) == b"{}"
