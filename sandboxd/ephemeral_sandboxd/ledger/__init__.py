"""The ledger: what happened, in SQLite, and live. `Recorder` is the room's door."""

from ephemeral_sandboxd.ledger.bus import Bus
from ephemeral_sandboxd.ledger.recorder import Recorder

__all__ = ["Bus", "Recorder"]
