"""Which of mitmproxy's protocol layers a connection gets: HTTP/1 from the client, TLS towards the provider, nothing else.

mitmproxy's own addons guess protocols from the first bytes and make a certificate authority on disk; a reverse proxy on
loopback needs neither.
"""

from __future__ import annotations

from mitmproxy.addonmanager import Loader
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.tls import TlsData

from ephemeral_proxy.errors import ClientConnection
from ephemeral_proxy.upstream import Upstream


class HttpOnly:
    """Every connection from a client is HTTP/1. Takes the place of mitmproxy's NextLayer, and its name."""

    name = "nextlayer"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        http = HttpLayer(nextlayer.context, HTTPMode.transparent)
        http.connections[nextlayer.context.client] = ClientConnection(http.context.fork(), self._upstream)
        nextlayer.layer = http


class UpstreamTls:
    """TLS towards the provider, verified: that half of mitmproxy's TlsConfig. The other half would make an authority."""

    def __init__(self) -> None:
        self._tls = TlsConfig()

    def load(self, loader: Loader) -> None:
        self._tls.load(loader)

    def tls_start_server(self, tls_start: TlsData) -> None:
        self._tls.tls_start_server(tls_start)
