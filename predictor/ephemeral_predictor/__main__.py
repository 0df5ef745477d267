"""``python -m ephemeral_predictor``: the predictor's process. Everything it needs comes from the settings."""

from __future__ import annotations

import sys

import uvloop

from ephemeral import logs, names, settings
from ephemeral.errors import EphemeralError
from ephemeral_predictor import app, planner
from ephemeral_predictor.state import Belief


def main() -> int:
    try:
        logs.begin(quiet=("httpx", "openai"))
        configuration = app.Configuration.from_settings()
        socket = settings.predictor_socket()
        # The tables are read now, not while the first conversation waits.
        names.package_for("numpy")
        belief = Belief("warm-up")
        belief.user_turn("plot numbers.csv")
        planner.plan_for(belief, at=0.0)
        uvloop.run(app.serve(configuration, socket))
    except (settings.SettingError, EphemeralError, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"predictor: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
