"""sandboxd's API over its stand-in, with the third door: `python server.py STATE LISTEN`. It prints the loopback and the remote port, and
serves until its standard input is closed."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import uvloop

from ephemeral_sandboxd.api import build, serve
from ephemeral_sandboxd.api.remote import Gate
from ephemeral_sandboxd.ledger import Recorder

_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).parents[1] / "api" / "stand_in.py")
assert _spec is not None
assert _spec.loader is not None
stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stand_in)


async def main(state: Path, listen: str) -> None:
    recorder = Recorder(state / "ledger.db", capture=False)
    app = build(stand_in.StandIn(recorder), recorder, token=(state / "token").read_text().strip(), dashboard=None)
    served = await serve(app, state / "sandboxd.sock", 0, listen=listen, gate=Gate(state))
    assert served.door is not None
    print(served.port, served.door.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await served.close()
    await recorder.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
