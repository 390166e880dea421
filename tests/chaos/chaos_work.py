"""The verifications of a trial. Each prints lines that are numbered, so that a gap or a duplicate in a log shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fixtures_server import branch_files

# Each container gives itself a name and numbers its lines: `~ NAME NUMBER …`. The last one says `fin`.
NUMBERED = """\
me=$(cut -c1-13 /proc/sys/kernel/random/uuid) number=0
say() { number=$((number + 1)); echo "~ $me $number $*"; }
"""
UNITS = """\
while read -r unit; do
    say begin "$unit"
    turn=0
    while [ $turn -lt 6 ]; do
        turn=$((turn + 1))
        for _ in 1 2 3 4 5 6 7 8 9 10; do say turn $turn; done
        sleep 0.04
    done
    mkdir -p "$(dirname "$SEATRIAL_OUTPUT/$unit")"
    FILL
    echo "$unit" >>"$SEATRIAL_CHECKPOINT"
    say end "$unit"
done <"$SEATRIAL_UNITS"
say fin
"""
PLAIN = 'echo "$unit,1" >"$SEATRIAL_OUTPUT/$unit.csv"'
BROKEN = """case $unit in
    */3) printf '%s\\tfailed\\tit is broken\\n' "$unit" >>"$SEATRIAL_CHECKPOINT"; say end "$unit"; continue ;;
    *) echo "$unit,1" >"$SEATRIAL_OUTPUT/$unit.csv" ;;
    esac"""
# A connection that is lost is no verdict: the script says 75, and the door's evidence would say so without it.
QUERY = """psql -XAtc "SELECT '$unit', count(*) FROM account" >"$SEATRIAL_OUTPUT/$unit.csv" || exit 1
    psql -Xqc "CREATE TABLE \\"seen $unit\\" AS SELECT 1" || exit 1"""
OPAQUE = """\
step=${1:-0}
while [ $step -lt 12 ]; do
    step=$((step + 1))
    say begin $step
    sleep 0.2
    echo $step >>"$SEATRIAL_OUTPUT/steps.txt"
    echo $step >>"$SEATRIAL_CHECKPOINT"
    say end $step
done
say fin
"""
COUNT = 12


@dataclass(frozen=True)
class Work:
    """A branch, how its run has to end, and the outputs that it must have then (unit → SHA-256)."""

    branch: str
    files: dict[str, bytes]
    states: tuple[str, ...]
    outputs: dict[str, str]
    failed: int = 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _units(name: str) -> list[str]:
    return [f"{name}/{number}" for number in range(COUNT)]


def _script(fill: str) -> str:
    return NUMBERED + UNITS.replace("FILL", fill)


def plain(name: str) -> Work:
    """Twelve units that pass."""
    units = _units(name)
    outputs = {unit: _digest(f"{unit},1\n") for unit in units}
    return Work(name, branch_files(_script(PLAIN), units=units), ("done",), outputs)


def broken(name: str) -> Work:
    """Twelve units of which one fails: the branch's fault, whatever the world does."""
    units = _units(name)
    outputs = {unit: _digest(f"{unit},1\n") for unit in units if not unit.endswith("/3")}
    return Work(name, branch_files(_script(BROKEN), units=units), ("failed",), outputs, failed=1)


def queries(name: str, accounts: int) -> Work:
    """Twelve units, listed by a command, that read and write their clone of a database."""
    units = _units(name)
    outputs = {unit: _digest(f"{unit}|{accounts}\n") for unit in units}
    more = "database: {source: sample}\nsetup: [\"psql -Xqc 'CREATE TABLE prepared (id int)'\"]"
    listing = "printf '" + "".join(unit + "\\n" for unit in units) + "'"
    return Work(name, branch_files(_script(QUERY), units=listing, more=more), ("done",), outputs)


def opaque(name: str) -> Work:
    """A script without units that can go on from its last token."""
    more = 'resume: exec sh verify.sh "$SEATRIAL_RESUME_FROM"'
    return Work(name, branch_files(NUMBERED + OPAQUE, units=None, more=more), ("done",), {})


def cancelled(name: str) -> Work:
    """Twelve units of a run that somebody cancels: it may have ended before."""
    units = _units(name)
    return Work(name, branch_files(_script(PLAIN), units=units), ("cancelled", "done"), {})
