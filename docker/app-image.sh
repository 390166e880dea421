#!/usr/bin/env bash
# Make seatrial/app:1 for docker/compose.yml, on seatrial/base:bookworm and without a registry.
#
#   docker/app-image.sh             docker's own layer cache makes the second build quick
#
# The build fetches the packages of requirements.txt from PyPI. The host's CA bundle is handed to its first stage only,
# proxy settings as build arguments, which Docker keeps out of the image.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

docker/base-image.sh
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
for part in runner jobs web; do
    # Only what Git knows: no caches, no state of a running Seatrial.
    git ls-files -z --cached --others --exclude-standard -- "$part" | xargs -0 cp --parents -t "$context"
done
cp requirements.txt docker/app.Dockerfile "$context"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$context/ca-bundle.crt"
arguments=(--build-arg "BASE=seatrial/base:${SUITE:-bookworm}")
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
done
echo "image: building seatrial/app:1"
docker build --quiet "${arguments[@]}" -f "$context/app.Dockerfile" -t seatrial/app:1 "$context" >"$context/build.log" 2>&1 ||
    { cat "$context/build.log" >&2; echo "image: the build of seatrial/app:1 failed" >&2; exit 1; }
echo "image: seatrial/app:1: $(docker image inspect --format '{{.Size}}' seatrial/app:1 | awk '{ printf "%d MB", $1 / 1e6 }')"
