#!/usr/bin/env bash
# Run Seatrial under a real systemd, as docs/deploy.md says, and kill, stop and boot it: `make systemd-trial`, 10 minutes.
#
# The machine is a container of Debian packages with systemd, a Docker engine and a PostgreSQL of its own, on the engine
# that answers here. It gets this repository's last commit and seatrial/base:bookworm and seatrial/gateway:1. KEEP=1 leaves
# it for a look: `docker exec -it NAME bash`. Root is needed in it, no more than the engine gives.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
name=${NAME:-seatrial-systemd-trial-$$}
image=seatrial/systemd-trial:${SUITE:-bookworm}

docker/debian-image.sh "$image" systemd systemd-sysv dbus ca-certificates git make procps python3

# Every capability that this host itself has, by name: an engine that lacks one refuses --privileged.
capabilities=()
bounding=$((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status)))
number=0
for capability in CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE \
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
    SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG; do
    (((bounding >> number) & 1)) && capabilities+=(--cap-add "$capability")
    number=$((number + 1))
done

finish() {
    local code=$?
    [ "$code" -eq 0 ] || docker exec "$name" journalctl --no-pager --lines 60 --unit 'seatrial-*' || true
    if [ -n "${KEEP:-}" ]; then echo "left: docker exec -it $name bash; docker rm --force --volumes $name"; return; fi
    docker rm --force --volumes "$name" >/dev/null 2>&1 || true
}
trap finish EXIT

# A cgroup namespace of its own keeps its engine's containers out of this host's groups. The first process makes what
# Docker mounts read-only in there writable, and becomes systemd.
# shellcheck disable=SC2016  # expanded in the container
docker run --detach --name "$name" --hostname trial "${capabilities[@]}" --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --security-opt systempaths=unconfined --device-cgroup-rule 'a *:* rwm' --cgroupns private --stop-signal SIGRTMIN+3 \
    --tmpfs /run:exec --tmpfs /run/lock --volume /var/lib/docker --volume /var/lib/seatrial "$image" \
    sh -c 'mount -o remount,rw /sys
           for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
               [ -L "$group" ] || ! mountpoint -q "$group" || mount -o remount,bind,rw "$group"
           done
           exec env container=docker /sbin/init' >/dev/null

archive() { git archive --format tar HEAD; }
inside() { docker exec --env PIP_CERT --env PIP_INDEX_URL "$name" /opt/seatrial/tests/systemd/inside.sh "$@"; }

echo "systemd trial: setting up $name"
docker exec "$name" mkdir -p /opt/seatrial
archive | docker exec --interactive "$name" tar -x -C /opt/seatrial
# What this host trusts, the trial trusts: a proxy or mirror may sign anew.
for certificate in /usr/local/share/ca-certificates/*.crt; do
    [ ! -e "$certificate" ] || docker cp "$certificate" "$name:/usr/local/share/ca-certificates/" >/dev/null
done
docker exec "$name" update-ca-certificates >/dev/null 2>&1
docker save seatrial/base:bookworm seatrial/gateway:1 | docker exec --interactive "$name" sh -c 'cat >/root/images.tar'
docker exec "$name" systemctl is-system-running --wait >/dev/null || true
inside set_up
echo "systemd trial: kill -9"
inside kills
echo "systemd trial: stop and start"
inside drain
echo "systemd trial: boot"
inside before_boot
docker restart --time 60 "$name" >/dev/null
inside after_boot
echo "systemd trial: passed"
