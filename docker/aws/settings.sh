#!/usr/bin/env bash
# Write the files of a secret to /etc/seatrial, before the units of this machine begin.
#
# The secret of AWS Secrets Manager is a JSON object, name of a file → its text: seatrial.toml, and what it names, such as
# verification.dsn. Only the role of this machine reads it; it stands in no user data and in no image.
set -euo pipefail

ETC=${SETTINGS_DIRECTORY:-/etc/seatrial}
: "${SETTINGS_SECRET:?the name of the secret}"
ROOT=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)

umask 0027
"${SETTINGS_PYTHON:-$ROOT/.venv/bin/python}" - "$SETTINGS_SECRET" "$ETC" <<'PYTHON'
import json
import os
import re
import sys

import boto3

secret, directory = sys.argv[1:]
text = boto3.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
for name, content in json.loads(text).items():
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not isinstance(content, str):
        sys.exit(f"settings: {name!r} in the secret {secret} is no name of a file with a text")
    path = os.path.join(directory, name)
    with open(f"{path}.new", "w", opener=lambda file, flags: os.open(file, flags, 0o640)) as file:
        file.write(content)
    os.replace(f"{path}.new", path)
PYTHON
if [ "$(id -u)" -eq 0 ] && getent group seatrial >/dev/null; then
    chgrp --recursive seatrial "$ETC"
fi
