# Runs the commands of /seatrial/control/commands in order, inside the workspace. What it leaves in /seatrial/io is
# the truth: `log`, `steps` (begin and end of each command with the machine's uptime) and, last and atomically, `exit`.
io=/seatrial/io
exec >>"$io/log" 2>&1 </dev/null

uptime() { read -r now _ </proc/uptime; }

child= ended=
# Everything else in the workspace hears it too: kill -1 spares only this shell and the init process.
trap 'ended=1; kill -TERM -1 2>/dev/null' TERM INT

code=0
for file in /seatrial/control/commands/*; do
    name=${file##*/}
    command=$(cat "$file")
    uptime
    printf 'begin\t%s\t%s\n' "$name" "$now" >>"$io/steps"
    case $name in
    *-units) sh -c "$command" >"$io/units" & ;;
    *) sh -c "$command" & ;;
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
    printf 'end\t%s\t%s\t%s\n' "$name" "$now" "$code" >>"$io/steps"
    [ "$code" -eq 0 ] && [ -z "$ended" ] || break
done
[ -n "$ended" ] && [ "$code" -eq 0 ] && code=143
printf '%s\n' "$code" >"$io/exit.part" && mv "$io/exit.part" "$io/exit"
exit "$code"
