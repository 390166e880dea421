#!/usr/bin/env bash
# Make sure that a Docker engine answers on this host.
#
#   docker/engine.sh            start one, installing Debian's or Ubuntu's docker.io first when there is none
#   docker/engine.sh --stop     stop the engine that this script started (containers keep running: live-restore)
#
# An engine that answers already is left exactly as it is. Otherwise, as root or through sudo:
#   1. no dockerd: `apt-get install docker.io iptables`;
#   2. with systemd as PID 1: `systemctl start docker`; else dockerd runs in the background,
#      log in $SEATRIAL_DOCKERD_LOG (default /var/log/seatrial-dockerd.log), pid in /run/seatrial-dockerd.pid;
#   3. wait until it answers; if it doesn't, print the end of its log and exit 1.
#
# `live-restore` keeps running workspaces alive while dockerd is restarted or upgraded. It is passed as a flag
# when this script starts dockerd, and written to /etc/docker/daemon.json only when this script installs the engine and
# that file does not exist: a file of yours is never changed. Without it `seatrial doctor` warns.
set -euo pipefail

LOG=${SEATRIAL_DOCKERD_LOG:-/var/log/seatrial-dockerd.log}
PIDFILE=/run/seatrial-dockerd.pid
DAEMON_JSON=/etc/docker/daemon.json
WAIT_SECONDS=60   # a first start on a slow disk loads its storage driver in well under half of this

say() { printf 'engine: %s\n' "$*"; }
die() { printf 'engine: %s\n' "$*" >&2; exit 1; }

started=   # the pid of the dockerd that this call started
SUDO=()
become_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || die "this needs root: run it as root, or install sudo"
    SUDO=(sudo)
}

answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

# A zombie counts as ended: where PID 1 does not reap, it stays in /proc for good.
runs() { grep -qsE '^State:[[:space:]]+[^ZX[:space:]]' "/proc/$1/status"; }

answers_root() { "${SUDO[@]}" docker info >/dev/null 2>&1; }

install_engine() {
    command -v apt-get >/dev/null || die "no dockerd here and no apt-get to install one with: install Docker, then try again"
    say "no Docker engine found; installing Debian/Ubuntu packages: docker.io iptables (apt-get, about 300 MB on disk)"
    if [ ! -e "$DAEMON_JSON" ]; then
        say "writing $DAEMON_JSON: {\"live-restore\": true}"
        "${SUDO[@]}" mkdir -p "$(dirname "$DAEMON_JSON")"
        printf '{\n  "live-restore": true\n}\n' | "${SUDO[@]}" tee "$DAEMON_JSON" >/dev/null
    fi
    apt_install docker.io iptables
    # Debian 13 and later ship the command-line client as a package of its own.
    command -v docker >/dev/null || apt_install docker-cli
}

apt_install() {
    "${SUDO[@]}" apt-get -q update || die "apt-get update failed"
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" ||
        die "apt-get install $* failed"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting dockerd through systemd"
        "${SUDO[@]}" systemctl start docker || { "${SUDO[@]}" journalctl -u docker -n 40 --no-pager >&2; die "dockerd did not start"; }
        return
    fi
    # The default bridge cannot be made without iptables, and an image build needs that bridge.
    command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || { say "installing the package iptables"; apt_install iptables; }
    local flags=(--pidfile "$PIDFILE")
    # dockerd refuses to start when a key stands both in the file and in the flags.
    grep -qs '"live-restore"' "$DAEMON_JSON" || flags+=(--live-restore)
    say "starting dockerd in the background; log: $LOG"
    # shellcheck disable=SC2016  # expanded by the inner shell, which has the rights to open the log
    started=$("${SUDO[@]}" env PATH="$PATH:/usr/sbin:/sbin" sh -c \
        'log=$1; shift; setsid nohup dockerd "$@" >>"$log" 2>&1 </dev/null & echo $!' sh "$LOG" "${flags[@]}")
}

wait_for_engine() {
    local deadline=$((SECONDS + WAIT_SECONDS))
    until answers_root; do
        if [ -n "$started" ] && ! runs "$started"; then
            show_log
            die "dockerd ended at once"
        elif [ "$SECONDS" -ge "$deadline" ]; then
            show_log
            die "dockerd did not answer within $WAIT_SECONDS s"
        fi
        sleep 0.2
    done
}

show_log() {
    echo "--- last lines of $LOG" >&2
    "${SUDO[@]}" tail -n 20 "$LOG" >&2 || true
}

stop_engine() {
    become_root
    local pid
    pid=$("${SUDO[@]}" cat "$PIDFILE" 2>/dev/null) || die "no engine that this script started ($PIDFILE is missing)"
    say "stopping dockerd (pid $pid)"
    "${SUDO[@]}" kill "$pid"
    while runs "$pid"; do sleep 0.1; done
}

case "${1:-}" in
    "") ;;
    --stop) stop_engine; exit ;;
    *) echo "usage: docker/engine.sh [--stop]" >&2; exit 2 ;;
esac

if answers; then
    say "a Docker engine answers; nothing to do"
    exit
fi
[ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST=$DOCKER_HOST does not answer: start that engine, or unset DOCKER_HOST to use this host's"
become_root
if ! { command -v docker >/dev/null && answers_root; }; then
    command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || [ -x /usr/bin/dockerd ] || install_engine
    # The package's own postinst starts dockerd where systemd runs.
    answers_root || start_engine
    wait_for_engine
fi
answers || die "the engine runs, but user $(id -un) may not use it: sudo usermod -aG docker $(id -un), then log in again"
say "Docker engine $(docker version --format '{{.Server.Version}}') answers"
