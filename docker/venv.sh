#!/usr/bin/env bash
# Make the virtual environment: docker/venv.sh PYTHON DIRECTORY. Called by `make venv`.
#
# Every package comes from requirements-dev.txt with its digest checked, uv first, which then installs the rest in
# seconds. The project itself is installed as editable. Nothing is written outside DIRECTORY and the caches of pip and uv.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
python=$1 venv=$2
here=docker

"$here/apt.sh" "the checkout of branches" git=git
"$here/apt.sh" "the virtual environment" "$python=python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "venv: Seatrial needs Python 3.11 or newer; $(command -v "$python") is $("$python" --version)." >&2
    echo "venv: name another one: make venv PYTHON=/path/to/python3.11" >&2
    exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    # Debian keeps ensurepip in a package of its own, named after the interpreter's version.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$here/apt.sh" "the virtual environment" "/missing=python$version-venv"
fi

packages=$(grep -c '^[a-z0-9]' requirements-dev.txt)
echo "venv: installing $packages pinned packages from PyPI into $venv ($("$python" --version))"
# A directory without its own working interpreter is left over from something else, or from another machine.
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    "$python" -m venv --clear "$venv"
fi
# Trust what the host trusts (a corporate proxy's CA), and use pip's configured index for uv too.
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
[ -n "${PIP_CERT:-}" ] || [ ! -e /etc/ssl/certs/ca-certificates.crt ] || export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
index=$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
pin=$(mktemp)
trap 'rm -f "$pin"' EXIT
awk '/^uv==/ { on = 1 } on { print } on && !/\\$/ { exit }' requirements-dev.txt >"$pin"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$pin"
export VIRTUAL_ENV=$PWD/$venv
# Compiled now: a service that runs as another user could not write what it compiles, and would do it again at each start.
"$venv/bin/uv" pip install --quiet --compile-bytecode --require-hashes -r requirements-dev.txt
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m compileall -q runner jobs web
