#!/usr/bin/env bash
# What the trial does inside of its machine: inside.sh set_up | kills | drain | before_boot | after_boot. Called by trial.sh.
set -euo pipefail

UNITS=(seatrial-valkey seatrial-web seatrial-worker seatrial-sweeper seatrial-comparer)
REPOSITORY=/srv/git/reports.git

say() { printf '  %s\n' "$*"; }
die() { printf 'systemd trial: %s\n' "$*" >&2; exit 1; }
seatrial() { (cd / && runuser -u seatrial -- /opt/seatrial/.venv/bin/seatrial --config /etc/seatrial/seatrial.toml "$@"); }
# until_true SECONDS WORDS COMMAND...: what it waited for, and for how long.
until_true() {
    local seconds=$1 what=$2 begun=$EPOCHREALTIME; shift 2
    local deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || die "not within $seconds s: $what"
        sleep 0.1
    done
    say "$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%5.1f s", b - a }')  $what"
}
answers() { (exec 3<>/dev/tcp/127.0.0.1/8321 && printf 'GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3 && grep -q ' 200 ' <&3) 2>/dev/null; }
main_pid() { systemctl show --property MainPID --value "$1"; }
other_main() { local now; now=$(main_pid "$1"); [ "$now" != 0 ] && [ "$now" != "$2" ] && systemctl is-active --quiet "$1"; }
field() { python3 -c 'import json, sys; run = json.load(sys.stdin); print(eval(sys.argv[1], {"run": run}))' "$1"; }
submit() { seatrial submit main --json | field 'run["id"]'; }
finished() { [ "$(seatrial show "$1" --json | field 'run["units"]["done"]')" -ge "$2" ]; }
ended() { [ "$(seatrial show "$1" --json | field 'run["state"]')" = done ]; }
passed() {
    until_true 180 "run $1 has ended" ended "$1"
    [ "$(seatrial show "$1" --json | field '(run["verdict"], run["units"]["done"])')" = "('passed', 40)" ] || { seatrial show "$1"; die "run $1 did not pass"; }
}
containers() { docker ps --quiet --no-trunc --filter name=-r"$1"- | sort; }

# As docs/deploy.md says, step by step.
set_up() {
    useradd --system --create-home --home-dir /var/lib/seatrial --shell /usr/sbin/nologin seatrial
    install -d -m 0750 -o seatrial -g seatrial /var/lib/seatrial   # the trial mounts a volume there
    (cd /opt/seatrial && make venv engine)
    docker load --quiet </root/images.tar
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends postgresql redis-server
    systemctl disable --now redis-server
    install -m 0644 /opt/seatrial/docs/systemd/*.service /etc/systemd/system/
    systemd-analyze verify "${UNITS[@]/%/.service}"
    usermod --append --groups docker seatrial
    install -d -m 0750 -o root -g seatrial /etc/seatrial
    install -m 0640 -o root -g seatrial /dev/null /etc/seatrial/seatrial.toml
    install -m 0640 -o root -g seatrial /dev/null /etc/seatrial/verification.dsn
    cat >/etc/seatrial/seatrial.toml <<-TOML
	[server]
	home = "/var/lib/seatrial"
	redis_url = "unix:///run/seatrial-valkey/valkey.sock"
	disk_reserve = "100m"

	[projects.reports]
	repository = "$REPOSITORY"
	default_baseline = "main"
	database = "verification"

	[databases.verification]
	dsn_file = "verification.dsn"

	[pools.local]
	slots = 2
	TOML
    echo "postgresql://seatrial:trial@127.0.0.1:5432/verification" >/etc/seatrial/verification.dsn
    runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1 <<-'SQL'
	CREATE ROLE app;
	CREATE DATABASE verification;
	\c verification
	CREATE TABLE bookings AS SELECT id, 'tenant_' || id % 40 AS tenant, id * 3 % 1000 AS amount FROM generate_series(1, 20000) id;
	ALTER TABLE bookings OWNER TO app;
	\c postgres
	CREATE ROLE seatrial LOGIN CREATEDB CREATEROLE PASSWORD 'trial';
	GRANT app TO seatrial WITH ADMIN OPTION;
	ALTER ROLE app NOLOGIN NOCREATEDB NOCREATEROLE;
	ALTER DATABASE verification OWNER TO seatrial;
	GRANT CREATE, TEMPORARY ON DATABASE verification TO app;
	\c verification
	GRANT USAGE, CREATE ON SCHEMA public TO app;
	SQL
    git init -q -b main /root/reports
    cat >/root/reports/seatrial.yml <<-'YAML'
	version: 1
	workspace:
	  image: seatrial/base:bookworm
	  limits: {cpus: 1, memory: 256m}
	database: {source: verification}
	units: seq -f tenant_%g 0 39
	run: sh export.sh
	YAML
    cat >/root/reports/export.sh <<-'SH'
	while read -r unit; do
	    sleep 2
	    psql -X -At -c "SELECT tenant, sum(amount) FROM bookings WHERE tenant = '$unit' GROUP BY 1" >"$SEATRIAL_OUTPUT/$unit.csv"
	    echo "$unit" >>"$SEATRIAL_CHECKPOINT"
	done <"$SEATRIAL_UNITS"
	SH
    git -C /root/reports add .
    git -C /root/reports -c user.name=Trial -c user.email=trial@example.com commit -q -m "Export each tenant"
    git clone -q --bare /root/reports "$REPOSITORY"
    chown -R seatrial: "$REPOSITORY"
    systemctl daemon-reload
    systemctl enable --now "${UNITS[@]}"
    until_true 60 "the pages answer after the first start" answers
    seatrial db bless verification --yes
    seatrial doctor
}

kills() {
    local run unit pid before
    run=$(submit)
    until_true 60 "run $run has two units" finished "$run" 2
    before=$(containers "$run")

    # A child: the supervisor brings it back, and says so.
    pid=$(pgrep -f -- '--instance 1 --slot 1$')
    kill -KILL "$pid"
    until_true 15 "a killed slot is back" bash -c "now=\$(pgrep -f -- '--instance 1 --slot 1\$') && [ \"\$now\" != $pid ]"
    journalctl --unit seatrial-worker --no-pager --output cat | grep -q 'child.died .*code=-9' || die "the journal does not tell of the killed slot"
    pid=$(pgrep -P "$(main_pid seatrial-web)" | head -n 1)
    kill -KILL "$pid"
    until_true 15 "the pages answer after their server process was killed" answers

    # The main process of each: systemd brings it back, and says so.
    for unit in "${UNITS[@]}"; do
        pid=$(main_pid "$unit")
        kill -KILL "$pid"
        until_true 30 "$unit is back after kill -9" other_main "$unit" "$pid"
        journalctl --unit "$unit" --no-pager --output cat | grep -q 'status=9/KILL' || die "the journal does not tell of the kill of $unit"
    done
    until_true 60 "the pages answer" answers
    [ "$(comm -12 <(echo "$before") <(containers "$run") | wc -l)" -ge 1 ] || die "no container of run $run outlived the kills"
    passed "$run"
}

# Stopping is within 10 s, leaves the containers, and a start goes on with them.
drain() {
    local run before begun took
    run=$(submit)
    until_true 60 "run $run has two units" finished "$run" 2
    before=$(containers "$run")
    begun=$EPOCHREALTIME
    systemctl stop seatrial-web seatrial-sweeper seatrial-comparer seatrial-worker
    took=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    say "$(printf '%5.1f' "$took") s  systemctl stop"
    awk -v t="$took" 'BEGIN { exit t > 10 }' || die "stopping took $took s"
    ! systemctl --no-pager --no-legend list-units 'seatrial-*' --state failed | grep . || die "a unit counts as failed after an orderly stop"
    [ "$(comm -12 <(echo "$before") <(containers "$run") | wc -l)" -ge 1 ] || die "no container of run $run outlived the stop"
    systemctl start "${UNITS[@]}"
    until_true 60 "the pages answer" answers
    passed "$run"
}

before_boot() {
    local run
    run=$(submit)
    until_true 60 "run $run has two units" finished "$run" 2
    echo "$run" >/root/run
}

after_boot() {
    until_true 120 "the pages answer after the boot" answers
    passed "$(cat /root/run)"
    # Away for long: systemd goes on trying. Settings that are not valid: it does not, and says why.
    mv /etc/seatrial/seatrial.toml /root/kept
    echo 'no = "such"' >/etc/seatrial/seatrial.toml
    chgrp seatrial /etc/seatrial/seatrial.toml && chmod 0640 /etc/seatrial/seatrial.toml
    systemctl restart seatrial-sweeper || true
    until_true 30 "a unit with wrong settings counts as failed" systemctl is-failed --quiet seatrial-sweeper
    mv /root/kept /etc/seatrial/seatrial.toml
    systemctl start seatrial-sweeper
    systemctl is-active --quiet seatrial-sweeper || die "the sweeper does not start"
}

"$@"
