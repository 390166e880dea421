# Runs the commands of /seatrial/control/commands in order, inside the workspace, as its first process: the kernel lets
# nothing in here kill that one, and what is orphaned falls to it, to be reaped while it waits. What it leaves in
# /seatrial/io is the truth: `log`, `steps` (begin and end of each command with the machine's uptime) and, last and
# atomically, `exit`: the code, and `stopped` after it when a signal from outside asked for the end.
io=/seatrial/io
# Opened while nobody can have put anything in their place; the commands get none of 3 and 4.
exec >>"$io/log" 2>&1 </dev/null 3>>"$io/steps" 4<"$io/log"

uptime() { read -r now _ </proc/uptime; }
hundredths() { echo $((${1%.*} * 100 + 1${1#*.} - 100)); }
# In the log too, so that each line stands exactly where it belongs; a line that the script left open is ended first.
say() {
    [ -z "$({ tail -c 1 <&4 | tr '\0' x; } 2>/dev/null)" ] || echo
    printf "── $@"
}

child= ended=
# Everything else in the workspace hears it too: kill -1 spares only this process.
trap 'ended=stopped; kill -TERM -1 2>/dev/null' TERM INT

# A session of its own, where the image has setsid: the script's `kill 0` is not to reach this shell.
session=
command -v setsid >/dev/null && session=setsid

code=0
for file in /seatrial/control/commands/*; do
    name=${file##*/}
    command=$(cat "$file")
    uptime
    began=$now
    printf 'begin\t%s\t%s\n' "$name" "$now" >&3
    say '%s\n' "${name#*-}"
    case $name in
    *-units)
        rm -f "$io/units"
        $session sh -c "$command" >"$io/units" 3>&- 4<&- &
        ;;
    *) $session sh -c "$command" 3>&- 4<&- & ;;
    esac
    child=$!
    wait "$child"
    code=$?
    # A trapped signal ends `wait` early: ask again until the command itself has ended.
    while [ -n "$ended" ] && kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    uptime
    took=$(($(hundredths "$now") - $(hundredths "$began")))
    say '%s ended after %d.%02d s with exit code %s\n' "${name#*-}" $((took / 100)) $((took % 100)) "$code"
    printf 'end\t%s\t%s\t%s\n' "$name" "$now" "$code" >&3
    [ "$code" -eq 0 ] && [ -z "$ended" ] || break
done
[ -n "$ended" ] && [ "$code" -eq 0 ] && code=143
rm -f "$io/exit.part"
printf '%s %s\n' "$code" "$ended" >"$io/exit.part" && mv -f "$io/exit.part" "$io/exit"
exit "$code"
