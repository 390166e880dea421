#!/usr/bin/env bash
# Make a small Debian image out of packages alone, without a container registry.
#
#   docker/debian-image.sh IMAGE PACKAGE...        e.g. docker/debian-image.sh seatrial/base:bookworm python3 git
#
# mmdebstrap unpacks the packages without documentation, manual pages and translations, and `docker import` makes the
# image. The label seatrial.inputs holds the digest of this script, the suite and the package list: when IMAGE
# carries the same one already, nothing is done (REBUILD=1 makes it anew, for the day's security updates).
#
# Settings from the environment:
#   SUITE   a Debian suite; default bookworm. The host itself may be another Debian, or Ubuntu.
#   MIRROR  where the packages come from; default: what the host's own apt uses for SUITE, else http://deb.debian.org/debian.
#           The host's apt proxy settings are used too. Neither stays in the image, whose sources are deb.debian.org.
set -euo pipefail

SUITE=${SUITE:-bookworm}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
EPOCH=1   # raise it to have every image made anew

say() { printf 'image: %s\n' "$*"; }
die() { printf 'image: %s\n' "$*" >&2; exit 1; }

[ $# -ge 2 ] || { echo "usage: docker/debian-image.sh IMAGE PACKAGE..." >&2; exit 2; }
image=$1; shift
packages=("$@")

inputs=$({ cat "$0"; echo "$EPOCH $SUITE ${packages[*]}"; } | sha256sum | cut -d' ' -f1)
# Two at once make the image once.
exec 9>"${TMPDIR:-/tmp}/seatrial-image-$(id -u).lock"
flock 9
present=$(docker image inspect --format '{{index .Config.Labels "seatrial.inputs"}}' "$image" 2>/dev/null || true)
if [ "$present" = "$inputs" ] && [ -z "${REBUILD:-}" ]; then
    say "$image is up to date"
    exit
fi

SUDO=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "this needs root: run it as root, or install sudo"
    SUDO=(sudo)
fi

missing=()
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
[ -e "$KEYRING" ] || missing+=(debian-archive-keyring)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing packages: ${missing[*]} (apt-get)"
    "${SUDO[@]}" apt-get -q update
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where the packages come from: MIRROR, or the lines of the host's own sources that serve this suite.
public_sources() {
    echo "deb http://deb.debian.org/debian $SUITE main"
    case $SUITE in sid|unstable|testing) return ;; esac
    echo "deb http://deb.debian.org/debian $SUITE-updates main"
    echo "deb http://deb.debian.org/debian-security $SUITE-security main"
}
host_sources() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v s="$SUITE" '$3 == "main" && ($2 == s || $2 == s"-updates" || $2 == s"-security") { print "deb", $1, $2, $3 }' |
        sort -u
}
if [ -n "${MIRROR:-}" ]; then
    echo "deb $MIRROR $SUITE main" >"$work/from"
else
    host_sources >"$work/from"
    grep -q " $SUITE main$" "$work/from" || public_sources >"$work/from"
fi
sed -i "s|^deb |deb [signed-by=$KEYRING] |" "$work/from"
public_sources >"$work/sources.list"
# Proxy and date checks, as the host's apt has them.
apt-config dump --format '%F "%v";%n' Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date \
    >"$work/apt.conf"

say "making $image: $SUITE with ${packages[*]} (about a minute)"
include=$(IFS=,; echo "${packages[*]}")
exclude=()
for path in /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/ri; do
    exclude+=("--dpkgopt=path-exclude=$path/*")
done
start=$SECONDS
# shellcheck disable=SC2016  # "$1" is the image's root, given by mmdebstrap to each hook
# The hooks leave nothing of this host in the image: its package sources, apt settings, names, and mmdebstrap's own options.
"${SUDO[@]}" mmdebstrap --quiet --variant=apt --format=tar \
    --include="$include" "${exclude[@]}" '--dpkgopt=path-include=/usr/share/doc/*/copyright' \
    --aptopt="$work/apt.conf" '--aptopt=Acquire::Languages "none"' \
    --customize-hook='rm -rf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list.d/* "$1"/var/log/* "$1"/etc/resolv.conf "$1"/etc/hostname' \
    --customize-hook="cp $work/sources.list \"\$1\"/etc/apt/sources.list" \
    --customize-hook='printf "Acquire::Languages \"none\";\nAcquire::GzipIndexes \"true\";\n" >"$1"/etc/apt/apt.conf.d/90small' \
    "$SUITE" "$work/image.tar" "$work/from"

docker import \
    --change "LABEL seatrial.inputs=$inputs" \
    --change 'ENV LANG=C.UTF-8' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["bash"]' \
    "$work/image.tar" "$image" >/dev/null
say "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%d MB", $1 / 1e6 }') in $((SECONDS - start)) s"
