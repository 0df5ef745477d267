"""The network of one sandbox, where its session was granted one: our egress proxy at the host's end of its pipe.

The sandbox itself has none. A listener inside hands connections over as frames; what they may reach is decided here.
"""

from __future__ import annotations

from ephemeral_sandboxd.egress import Egress, EgressRecord
from ephemeral_sandboxd.pool.notes import Notes, note
from ephemeral_sandboxd.runtimes import Box


class Network:
    """One sandbox's way out. ``allow`` are the domains it was opened for."""

    def __init__(self, box: Box, session_id: str, allow: tuple[str, ...], notes: Notes):
        self.allow = allow
        self._session_id = session_id
        self._notes = notes
        self._egress = Egress(allow, box.send_network, self._record)
        self.receive = self._egress.receive

    @property
    def busy(self) -> bool:
        """Whether connections are open: a frozen sandbox could not answer on them."""
        return self._egress.active > 0

    async def close(self) -> None:
        await self._egress.close()

    def _record(self, record: EgressRecord) -> None:
        note(self._notes, self._session_id, "egress", f"{record.verdict} {record.host}:{record.port} {record.reason}".strip(), record.duration_ms,
             {"host": record.host, "port": record.port, "scheme": record.scheme, "verdict": record.verdict,
              "bytes_up": record.bytes_up, "bytes_down": record.bytes_down})
