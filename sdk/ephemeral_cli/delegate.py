"""``ephemeral delegate USER``: let a user who is not root run sandboxd, by handing over the control group that its sandboxes need."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys

from ephemeral_cli.errors import CommandError


def run(user: str) -> str:
    """Hand the group of the daemon on EPHEMERAL_STATE to ``user`` (a name or a number); returns its path. Raises CommandError."""
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise CommandError(f"there is no user called {user}", "write a user's name or number") from None
    if os.geteuid():
        raise CommandError("control groups are root's to hand over", f"sudo -E {sys.argv[0]} delegate {user}")
    done = subprocess.run([sys.executable, "-m", "ephemeral_sandboxd.delegate", str(uid)], capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise CommandError(f"the control group could not be handed over: {done.stderr[-300:].strip()}", "ephemeral doctor") from None
    if "error" in answer:
        raise CommandError(str(answer["error"]), str(answer["hint"]))
    return str(answer["group"])
