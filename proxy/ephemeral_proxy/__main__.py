"""``python -m ephemeral_proxy``: serve the proxy until told to stop.

Settings: ``EPHEMERAL_PROXY_PORT``, ``EPHEMERAL_UPSTREAM``, ``EPHEMERAL_UPSTREAMS``, ``EPHEMERAL_PROXY_PORTS``,
``EPHEMERAL_INTERCEPT_PORT``, ``EPHEMERAL_PROXY_WORKERS``.
"""

from __future__ import annotations

import functools
import logging
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

from ephemeral import logs, providers, settings
from ephemeral_certs.interception import Interception
from ephemeral_proxy import ports
from ephemeral_proxy.counters import Counters
from ephemeral_proxy.family import SIGNALS, Family, Member

if TYPE_CHECKING:
    from ephemeral_proxy.worker import House

log = logging.getLogger("ephemeral.proxy")

_MOST_WORKERS = 4
_WORKERS_LIMIT = 64
_DESCRIPTORS = 65_536


def main() -> int:
    """Exit code 0 after a stop, 2 when the settings or the ports do not allow a start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _raise_descriptors()
    os.environ.setdefault("UV_THREADPOOL_SIZE", "16")  # names are looked up in these: a slow one must not hold up the others
    try:
        logs.begin("warning")
        logging.getLogger("mitmproxy").setLevel(logging.CRITICAL)  # it quotes addresses and reasons of connections
        known = providers.configured()
        authority = settings.get("state") / "certs"
        listening = ports.open_all(with_interception=Interception.exists(authority))
        count = _workers()
        predictor, memory = settings.predictor_socket(), settings.get("state") / "identity.db"
    except (settings.SettingError, providers.ProviderError, ports.PortError, ValueError) as error:
        return _refuse(str(error))
    # mitmproxy takes a second to import: not before the settings are right, and once for all who are forked.
    from ephemeral_proxy import worker
    from ephemeral_proxy.copies import reading

    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
    counters = Counters(count + 2)
    house = worker.House(
        ports=[worker.Port(name, one) for name, one in listening.items()],
        providers=known,
        authority=authority,
        counters=counters,
        workers=count,
    )
    members = [
        Member(f"worker {number + 1}", functools.partial(worker.run, house, pair[0], counters.row(number)), counters.row(number))
        for number, pair in enumerate(pairs)
    ]
    read = functools.partial(reading.run, [pair[1] for pair in pairs], counters.row(count), predictor, memory)
    members.insert(0, Member("reader", read, counters.row(count), last=True, without=tuple(listening.values())))
    Family(members, counters.row(count + 1)).run(lambda: _announce(house), lambda: _close(house))
    return 0


def _workers() -> int:
    wanted: int = settings.get("proxy_workers")
    if not 0 <= wanted <= _WORKERS_LIMIT:
        raise settings.SettingError(f"EPHEMERAL_PROXY_WORKERS is {wanted}: write a number from 1 to {_WORKERS_LIMIT}, or 0 for one a core")
    return wanted or min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def _raise_descriptors() -> None:
    """Two descriptors a request: the usual 1024 would be 500 requests at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _announce(house: House) -> None:
    for port in house.ports:
        address = f"http://127.0.0.1:{port.socket.getsockname()[1]}"
        if port.name == "proxy":
            log.info("listening on %s/v1, forwarding to %s/v1", address, house.providers[providers.OPENAI].url)
        elif port.name == "intercept":
            log.info("listening on %s for HTTPS_PROXY", address)
        else:
            log.info("listening on %s for %s", address, port.name)


def _close(house: House) -> None:
    """The ports are free for others as soon as we stop, not when the last answer is over."""
    for port in house.ports:
        port.socket.close()


def _refuse(sentence: str) -> int:
    """Not a log line: it is the answer to whoever typed the command."""
    sys.stderr.write(f"ephemeral.proxy: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
