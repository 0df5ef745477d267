"""The processes of the proxy: a parent that does nothing but watch, workers that carry the traffic, and the copy's reader.

All are forked from the parent, which has loaded everything they need: one that dies is replaced within milliseconds, and
the sockets they listen on stay open meanwhile.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from ephemeral_proxy.counters import Row

log = logging.getLogger("ephemeral.proxy")

STEADY_SECONDS = 5.0
"""Who lived this long is replaced at once; who did not, after a delay that doubles."""
_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 2.0
STOP_SECONDS = 1.5
"""How long a child gets to stop before it is killed."""
FROZEN_SECONDS = 30.0
"""Who did not turn for so long is replaced."""
_LOOK_SECONDS = 5.0
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
"""To be blocked before the first of them may come: ``Family.run`` takes them from the queue."""
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Member:
    """A process to keep. ``row.alive_at`` shows that it turns. ``last``: it is stopped after the others have ended.
    ``without``: sockets it must not hold open."""

    name: str
    main: Callable[[], None]
    row: Row
    last: bool = False
    without: tuple[socket.socket, ...] = ()
    pid: int = 0
    started: float = 0.0
    delay: float = 0.0
    due: float = field(default=0.0, repr=False)


class Family:
    """Keeps ``members`` running until SIGTERM or SIGINT; then stops them in order. ``row`` counts what was replaced."""

    def __init__(self, members: list[Member], row: Row) -> None:
        self._members = members
        self._row = row

    def run(self, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        """Blocks. ``ready`` is called when all were started, ``stopping`` when they are about to be stopped."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for member in self._members:
            self._start(member)
        ready()
        looked = time.monotonic()
        while True:
            waiting = [member.due for member in self._members if not member.pid]
            patience = max(0.0, min(waiting) - time.monotonic()) if waiting else _LOOK_SECONDS
            told = signal.sigtimedwait(SIGNALS, patience)
            if told and told.si_signo != signal.SIGCHLD:
                break
            now = time.monotonic()
            # When we ourselves were stopped for a while, so were they: they get time to show that they turn.
            if now - looked < 2 * _LOOK_SECONDS:
                self._end_frozen(now)
            looked = now
            self._collect()
            for member in self._members:
                if not member.pid and member.due <= time.monotonic():
                    self._row.restarts += 1
                    self._start(member)
        stopping()
        self._stop()

    def _end_frozen(self, now: float) -> None:
        for member in self._members:
            seen = max(member.row.alive_at, member.started)
            if member.pid and now - seen > FROZEN_SECONDS:
                log.warning("the %s does not turn any more and is ended", member.name)
                os.kill(member.pid, signal.SIGKILL)

    def _start(self, member: Member) -> None:
        parent = os.getpid()
        member.started = time.monotonic()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes: for now
            member.due = time.monotonic() + _LONGEST_DELAY_SECONDS
            log.warning("the %s cannot be started: %s", member.name, error.strerror)
            return
        if pid == 0:
            self._be(member, parent)
        member.pid = pid

    def _be(self, member: Member, parent: int) -> NoReturn:
        """The child's life."""
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to pass on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() == parent:
                for one in member.without:
                    one.close()
                member.main()
                status = 0
        except BaseException as error:
            log.error("the %s cannot go on: %s", member.name, type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
        finally:
            os._exit(status)

    def _collect(self, replaced: bool = True) -> None:
        """Note who has died, and when it is to be ``replaced``."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in self._members:
                if member.pid != pid:
                    continue
                member.pid = 0
                if replaced:
                    now = time.monotonic()
                    steady = now - member.started > STEADY_SECONDS
                    member.delay = 0.0 if steady else min(max(member.delay * 2, _FIRST_DELAY_SECONDS), _LONGEST_DELAY_SECONDS)
                    member.due = now + member.delay
                    log.warning("the %s ended (%s); another takes its place", member.name, _how(status))

    def _stop(self) -> None:
        for last in (False, True):
            those = [member for member in self._members if member.last is last and member.pid]
            self._tell(those, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while any(member.pid for member in those) and (left := deadline - time.monotonic()) > 0:
                signal.sigtimedwait({signal.SIGCHLD}, left)
                self._collect(replaced=False)
            self._tell(those, signal.SIGKILL)
            for member in those:
                if member.pid:
                    os.waitpid(member.pid, 0)

    def _tell(self, members: list[Member], number: signal.Signals) -> None:
        for member in members:
            if member.pid:
                os.kill(member.pid, number)  # not collected yet, so the number is still its own


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
