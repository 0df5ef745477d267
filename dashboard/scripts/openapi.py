"""Writes the OpenAPI components of every wire message that the dashboard reads: ``openapi.py OUTPUT``.

``npm run types`` turns the file into ``src/api/schema.d.ts``. It reads the pydantic models themselves, as sandboxd's own
``/openapi.json`` does, so that types can be made without a running sandboxd. Messages are described as they are
*answered*: a field with a default is always there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic.json_schema import models_json_schema

from ephemeral import wire

MESSAGES = (
    wire.Live, wire.Problem,
    wire.Page[wire.Session], wire.Page[wire.Execution], wire.Page[wire.Moment], wire.Page[wire.PlanRecord],
    wire.Page[wire.Sandbox],
)  # fmt: skip


def document() -> dict[str, object]:
    """An OpenAPI 3.1 document with no paths: names of messages -> their JSON schema."""
    _, schema = models_json_schema(
        [(message, "serialization") for message in MESSAGES], ref_template="#/components/schemas/{model}"
    )
    for message in schema["$defs"].values():
        if "properties" in message:
            message["required"] = list(message["properties"])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ephemeral wire messages", "version": "1"},
        "paths": {},
        "components": {"schemas": schema["$defs"]},
    }


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: openapi.py OUTPUT.json")
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document(), indent=1))


if __name__ == "__main__":
    main()
