#!/usr/bin/env bash
# Make a machine of a pool out of a fresh Debian instance: the launch template's user data calls it once, as root.
#
#   docker/aws/worker-setup.sh --pool NAME --region REGION --secret SECRET [--device /dev/sdf]
#
# It may be called again; what is there already is left alone.
#   1. the data volume: XFS (reflink, project quotas) at /var/lib/seatrial, for workspaces, trees and Docker's images;
#   2. Docker with its data there, Seatrial's environment and images (make venv engine images);
#   3. the user seatrial, which may shut the machine down and grow its file system, and nothing else as root;
#   4. units for the worker and for the sweeper of this host, which begin at every boot with the settings of SECRET.
set -euo pipefail

ROOT=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
HOME_DIRECTORY=/var/lib/seatrial
ETC=/etc/seatrial
LABEL=seatrial
pool='' region='' secret='' device=/dev/sdf

say() { printf 'worker-setup: %s\n' "$*"; }
die() { printf 'worker-setup: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        --pool) pool=$2 ;;
        --region) region=$2 ;;
        --secret) secret=$2 ;;
        --device) device=$2 ;;
        *) die "unknown option $1" ;;
    esac
    shift 2
done
if [ -z "$pool" ] || [ -z "$region" ] || [ -z "$secret" ]; then
    die "--pool, --region and --secret are needed"
fi
[ "$(id -u)" -eq 0 ] || die "this needs root"

# Instances of today show EBS volumes as NVMe disks; which one is whose, its serial number and its data tell.
data_disk() {
    local disk
    if [ -b "$device" ]; then
        readlink -f "$device"
        return
    fi
    for disk in $(lsblk --nodeps --noheadings --paths --output NAME,TYPE | awk '$2 == "disk" { print $1 }'); do
        # Neither partitions, nor a file system, nor a mount: that is nobody's.
        if [ "$(lsblk --noheadings --output NAME "$disk" | wc -l)" -eq 1 ] && ! blkid "$disk" >/dev/null &&
            ! grep -q "^$disk " /proc/mounts; then
            echo "$disk"
            return
        fi
    done
}

install_packages() {
    say "installing Debian packages"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
        ca-certificates cloud-guest-utils coreutils git make openssh-client sudo util-linux xfsprogs
}

mount_data() {
    local disk
    if ! blkid --label "$LABEL" >/dev/null; then
        disk=$(data_disk)
        [ -n "$disk" ] || die "there is no data volume: $device is not there, and no disk is empty"
        say "making XFS on $disk"
        mkfs.xfs -q -L "$LABEL" "$disk"
    fi
    mkdir -p "$HOME_DIRECTORY"
    # Docker waits for it: without it, images would fill the root volume.
    local options=defaults,prjquota,nofail,x-systemd.required-by=docker.service,x-systemd.before=docker.service
    grep -q "^LABEL=$LABEL " /etc/fstab || echo "LABEL=$LABEL $HOME_DIRECTORY xfs $options 0 2" >>/etc/fstab
    mountpoint -q "$HOME_DIRECTORY" || mount "$HOME_DIRECTORY"
}

set_up_docker() {
    if [ ! -e /etc/docker/daemon.json ]; then
        mkdir -p /etc/docker
        printf '{\n  "data-root": "%s/docker",\n  "live-restore": true\n}\n' "$HOME_DIRECTORY" >/etc/docker/daemon.json
    fi
    make -C "$ROOT" venv engine images
    # Branches are checked out and their images are built; whoever runs them has the right to both.
    id seatrial >/dev/null 2>&1 || useradd --system --home-dir "$HOME_DIRECTORY/home" --shell /usr/sbin/nologin seatrial
    usermod --append --groups docker seatrial
    install -d -m 0750 -o seatrial -g seatrial "$HOME_DIRECTORY/home"
}

allow_root() {
    local rules=/etc/sudoers.d/seatrial
    cat >"$rules.new" <<RULES
# The dead man's switch, and what makes a grown volume's room usable.
seatrial ALL=(root) NOPASSWD: /usr/sbin/shutdown -h now, /usr/bin/growpart, /usr/sbin/xfs_growfs, /usr/sbin/resize2fs
RULES
    chmod 0440 "$rules.new"
    visudo --check --quiet --file "$rules.new"
    mv "$rules.new" "$rules"
}

install_units() {
    install -d -m 0750 -o root -g seatrial "$ETC"
    printf 'MACHINE_POOL=%s\nSETTINGS_SECRET=%s\nAWS_DEFAULT_REGION=%s\n' "$pool" "$secret" "$region" >"$ETC/machine"
    install -m 0644 "$ROOT/docker/aws/seatrial-settings.service" "$ROOT/docker/aws/seatrial-worker.service" \
        "$ROOT/docker/aws/seatrial-sweeper.service" /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --now seatrial-settings seatrial-worker seatrial-sweeper
}

install_packages
mount_data
set_up_docker
allow_root
install_units
say "this machine belongs to pool $pool"
