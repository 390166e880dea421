#!/usr/bin/env bash
# Make an environment of its own for the tools that comparisons are measured beside: docker/bench-tools.sh UV DIRECTORY.
# Called by `make bench`. They want other versions of packages than Seatrial, and must never be imported by it.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
uv=$1 venv=$2
stamp=$venv/.installed
[ ! "$stamp" -nt requirements-bench.txt ] || exit 0
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
index=$("${uv%/*}/python" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
echo "bench: installing datacompy, csv-diff and daff into $venv"
[ -x "$venv/bin/python" ] || "$uv" venv --quiet --python "${uv%/*}/python" "$venv"
"$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements-bench.txt
touch "$stamp"
