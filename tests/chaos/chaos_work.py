"""The verifications of a trial. Each prints lines that are numbered, so that a gap or a duplicate in a log shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

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
    while [ $turn -lt TURNS ]; do
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
while [ $step -lt STEPS ]; do
    step=$((step + 1))
    say begin $step
    sleep 0.2
    echo $step >>"$SEATRIAL_OUTPUT/steps.txt"
    echo $step >>"$SEATRIAL_CHECKPOINT"
    say end $step
done
say fin
"""


@dataclass(frozen=True)
class Size:
    """How many units a branch has (at least four), and how many turns of 0.04 s each of them takes."""

    units: int
    turns: int


USUAL, SHORT = Size(12, 6), Size(4, 1)


@dataclass(frozen=True)
class Work:
    """A branch, how its run has to end, and the outputs that it must have then (unit → SHA-256).

    `compared`: its run is compared with another run of the same branch.
    """

    branch: str
    files: dict[str, bytes]
    states: tuple[str, ...]
    outputs: dict[str, str]
    failed: int = 0
    compared: bool = False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _units(name: str, size: Size) -> list[str]:
    return [f"{name}/{number}" for number in range(size.units)]


def _script(fill: str, size: Size) -> str:
    return NUMBERED + UNITS.replace("FILL", fill).replace("TURNS", str(size.turns))


def plain(name: str, size: Size = USUAL) -> Work:
    """Units that pass."""
    units = _units(name, size)
    outputs = {unit: _digest(f"{unit},1\n") for unit in units}
    return Work(name, branch_files(_script(PLAIN, size), units=units), ("done",), outputs)


def compared(name: str, size: Size = USUAL) -> Work:
    """Units that pass, on two legs that are the same."""
    return replace(plain(name, size), compared=True)


def broken(name: str, size: Size = USUAL) -> Work:
    """Units of which one fails: the branch's fault, whatever the world does."""
    units = _units(name, size)
    outputs = {unit: _digest(f"{unit},1\n") for unit in units if not unit.endswith("/3")}
    return Work(name, branch_files(_script(BROKEN, size), units=units), ("failed",), outputs, failed=1)


def queries(name: str, accounts: int, size: Size = USUAL) -> Work:
    """Units, listed by a command, that read and write their clone of a database."""
    units = _units(name, size)
    outputs = {unit: _digest(f"{unit}|{accounts}\n") for unit in units}
    more = "database: {source: sample}\nsetup: [\"psql -Xqc 'CREATE TABLE prepared (id int)'\"]"
    listing = "printf '" + "".join(unit + "\\n" for unit in units) + "'"
    return Work(name, branch_files(_script(QUERY, size), units=listing, more=more), ("done",), outputs)


def opaque(name: str, size: Size = USUAL) -> Work:
    """A script without units that can go on from its last token."""
    more = 'resume: exec sh verify.sh "$SEATRIAL_RESUME_FROM"'
    script = NUMBERED + OPAQUE.replace("STEPS", str(size.units))
    return Work(name, branch_files(script, units=None, more=more), ("done",), {})


def cancelled(name: str, size: Size = USUAL) -> Work:
    """Units of a run that somebody cancels: it may have ended before."""
    units = _units(name, size)
    return Work(name, branch_files(_script(PLAIN, size), units=units), ("cancelled", "done"), {})
