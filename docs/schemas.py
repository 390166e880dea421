"""Write the JSON Schemas of both files beside this script: `python docs/schemas.py`."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.settings import settings_json_schema
from runner.spec import spec_json_schema

HERE = Path(__file__).parent

for name, schema in (("spec", spec_json_schema()), ("settings", settings_json_schema())):
    (HERE / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
