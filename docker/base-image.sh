#!/usr/bin/env bash
# Make seatrial/base:bookworm, the workspace image of the examples and a base for your own. See docker/debian-image.sh.
#
#   docker/base-image.sh            nothing is done when the image is up to date; REBUILD=1 makes it anew
#
# docker/base.Dockerfile makes the same from debian:bookworm-slim, where a registry can be reached.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
mapfile -t packages <"$here/base-packages.txt"
exec "$here/debian-image.sh" "seatrial/base:${SUITE:-bookworm}" "${packages[@]}"
