#!/usr/bin/env bash
# Make seatrial/gateway:1, the image of a workspace's door, without a registry: packages by docker/debian-image.sh, then
# docker/gateway.Dockerfile on top, which needs no network.
#
#   docker/gateway-image.sh         nothing is done when the image is up to date; REBUILD=1 makes it anew
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
packages=seatrial/gateway-packages:${SUITE:-bookworm}
image=seatrial/gateway:1

"$here/debian-image.sh" "$packages" pgbouncer socat

inputs=$({ docker image inspect --format '{{.Id}}' "$packages"
           cat "$here/gateway.Dockerfile" "$here/gateway-entrypoint.sh"; } | sha256sum | cut -d' ' -f1)
present=$(docker image inspect --format '{{index .Config.Labels "seatrial.inputs"}}' "$image" 2>/dev/null || true)
if [ "$present" = "$inputs" ]; then
    echo "image: $image is up to date"
    exit
fi
echo "image: building $image"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$here/gateway.Dockerfile" "$here/gateway-entrypoint.sh" "$context"
docker build --quiet --network none --build-arg "BASE=$packages" --label "seatrial.inputs=$inputs" \
    -f "$context/gateway.Dockerfile" -t "$image" "$context" >"$context/build.log" 2>&1 ||
    { cat "$context/build.log" >&2; echo "image: the build of $image failed" >&2; exit 1; }
echo "image: $image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%d MB", $1 / 1e6 }')"
