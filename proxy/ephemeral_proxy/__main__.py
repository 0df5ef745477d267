"""``python -m ephemeral_proxy``: serve the proxy until told to stop. Settings: ``EPHEMERAL_PROXY_PORT``, ``EPHEMERAL_UPSTREAM``."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys

from ephemeral import settings
from ephemeral.events import EventSink
from ephemeral_proxy.loop import Loop
from ephemeral_proxy.upstream import Upstream, UpstreamError

log = logging.getLogger("ephemeral.proxy")


def main() -> int:
    """Exit code 0 after a stop, 2 when the settings or the port do not allow a start."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    # It reports a port it cannot have with an advice about flags that are not ours; we say it ourselves.
    logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)
    try:
        upstream = Upstream.parse(settings.get("upstream"))
        port = settings.get("proxy_port")
        sink = EventSink(f"unix:{settings.predictor_socket()}")
    except (settings.SettingError, UpstreamError, ValueError) as error:
        log.error("%s", error)
        return 2
    from ephemeral_proxy.server import serve  # mitmproxy takes a second to import: not before the settings are right

    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            failure = runner.run(serve(upstream, port, sink))
    finally:
        sink.close()
    if failure is None:
        return 0
    if failure.errno == errno.EADDRINUSE:
        log.error(
            "port %d of 127.0.0.1 is taken: stop what listens there, or type EPHEMERAL_PROXY_PORT=%d", port, port + 10
        )
    else:
        log.error(
            "cannot listen on 127.0.0.1:%d (%s): choose another port with EPHEMERAL_PROXY_PORT", port, failure.strerror
        )
    return 2


if __name__ == "__main__":
    sys.exit(main())
