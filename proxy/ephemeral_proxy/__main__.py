"""``python -m ephemeral_proxy``: serve the proxy until told to stop. Settings: ``EPHEMERAL_PROXY_PORT``, ``EPHEMERAL_UPSTREAM``."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys

from ephemeral import logs, settings
from ephemeral.events import EventSink
from ephemeral_proxy.loop import Loop
from ephemeral_proxy.upstream import Upstream, UpstreamError


def main() -> int:
    """Exit code 0 after a stop, 2 when the settings or the port do not allow a start."""
    try:
        logs.begin("warning")
        # It reports a port it cannot have with an advice about flags that are not ours; we say it ourselves.
        logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
        upstream = Upstream.parse(settings.get("upstream"))
        port = settings.get("proxy_port")
        sink = EventSink(f"unix:{settings.predictor_socket()}")
    except (settings.SettingError, UpstreamError, ValueError) as error:
        return _refuse(str(error))
    from ephemeral_proxy.server import serve  # mitmproxy takes a second to import: not before the settings are right

    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            failure = runner.run(serve(upstream, port, sink))
    finally:
        sink.close()
    if failure is None:
        return 0
    if failure.errno == errno.EADDRINUSE:
        return _refuse(f"port {port} of 127.0.0.1 is taken: stop what listens there, or type EPHEMERAL_PROXY_PORT={port + 10}")
    return _refuse(f"cannot listen on 127.0.0.1:{port} ({failure.strerror}): choose another port with EPHEMERAL_PROXY_PORT")


def _refuse(sentence: str) -> int:
    """Not a log line: it is the answer to whoever typed the command."""
    sys.stderr.write(f"ephemeral.proxy: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
