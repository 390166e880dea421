#!/usr/bin/env bash
# Install Debian or Ubuntu packages for the commands or files that are missing, and say so first.
#
#   docker/apt.sh REASON WHAT=PACKAGE...     WHAT is a command's name or an absolute path
#
# Nothing is done, and apt is not even asked, when everything is there. Root, or sudo.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: docker/apt.sh REASON WHAT=PACKAGE..." >&2; exit 2; }
reason=$1; shift

PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in "$@"; do
    what=${pair%%=*} package=${pair#*=}
    case $what in
        /*) [ -e "$what" ] || missing+=("$package") ;;
        *) command -v "$what" >/dev/null || missing+=("$package") ;;
    esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "apt: installing for $reason: ${missing[*]}"
command -v apt-get >/dev/null || { echo "apt: no apt-get here; install them by hand" >&2; exit 1; }
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "apt: this needs root: run it as root, or install sudo" >&2; exit 1; }
    sudo=(sudo)
fi
"${sudo[@]}" apt-get -q update
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
