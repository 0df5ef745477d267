"""``python -m ephemeral_sandboxd.delegate UID``, as root: hand the control group of the daemon on EPHEMERAL_STATE to a user.

Prints one JSON object: ``{"group"}``, or ``{"error", "hint"}``. A control group is gone with the next boot.
"""

from __future__ import annotations

import json
import sys

from ephemeral import settings
from ephemeral_sandboxd.runtimes import cgroups


def main() -> int:
    group = cgroups.group_of(settings.get("state"))
    try:
        cgroups.Cgroup(group).delegate(int(sys.argv[1]))
    except (OSError, ValueError, IndexError) as problem:
        sys.stdout.write(json.dumps({"error": f"control group {group} cannot be handed over: {problem}", "hint": "run it as root, with the user's number"}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"group": group}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
