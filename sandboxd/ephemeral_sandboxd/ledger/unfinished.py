"""After a crash: what the database says is still going on, and nobody does any more."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

CRASHED = "sandboxd stopped while this ran, and its sandbox is gone with it: run it again"


class Unfinished(NamedTuple):
    """A session whose sandbox died with the daemon that had it."""

    session: str
    sandbox: str
    ran: bool
    """Whether any of its code had run in that sandbox."""


FIND = """
select s.id, s.sandbox_id, exists (
    select 1 from executions e where e.session_id = s.id and e.sandbox_id = s.sandbox_id and (e.started_at is not null or e.state = 'running' or e.verdict = 'crashed')
)
from sessions s left join sandboxes b on b.id = s.sandbox_id
where s.sandbox_id is not null and (s.state = 'active' or b.state = 'lost')
order by s.rowid
"""
"""The lost ones too: a daemon that was killed twice in a row still has to tell them. Once a session goes on, it has another sandbox."""


def unfinished(connection: sqlite3.Connection) -> list[Unfinished]:
    return [Unfinished(session, sandbox, bool(ran)) for session, sandbox, ran in connection.execute(FIND)]


def mark_lost(connection: sqlite3.Connection) -> list[Unfinished]:
    """In one transaction: sandboxes that were alive are lost, executions under way have crashed, active sessions have ended, at
    their last sign of life. Returns what was unfinished. Not for a database that a daemon works on."""
    connection.execute("begin immediate")
    found = unfinished(connection)
    connection.execute("update sandboxes set state = 'lost', frozen = 0 where state not in ('lost', 'deleted')")
    connection.execute("update executions set state = 'done', verdict = 'crashed', error = ? where state <> 'done'", [CRASHED])
    connection.execute("update sessions set state = 'ended', ended_at = last_at where state = 'active'")
    connection.execute("commit")
    return found
