"""TLS on both sides: towards providers verified like any client does, towards clients with certificates of our authority."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from mitmproxy.addons.tlsconfig import AppData, TlsConfig, alpn_select_callback
from mitmproxy.net import tls as net_tls
from mitmproxy.options import Options
from mitmproxy.tls import ClientHelloData, TlsData
from OpenSSL import SSL

from ephemeral_certs.interception import Interception


class Tls:
    """The hooks of mitmproxy's TLS layers. Of its own addon only the half that faces servers: the other would make an
    authority on disk that may vouch for anything."""

    def __init__(self, interception: Interception | None) -> None:
        self._theirs = TlsConfig()
        self._interception = interception

    def load(self, options: Options) -> None:
        """Declare the options that it reads."""
        self._theirs.load(options)

    def tls_start_server(self, tls_start: TlsData) -> None:
        self._theirs.tls_start_server(tls_start)

    def tls_clienthello(self, hello: ClientHelloData) -> None:
        # What the provider agrees to (HTTP/2 or not) is what the client shall be offered.
        hello.establish_server_tls_first = True

    def tls_start_client(self, tls_start: TlsData) -> None:
        assert self._interception
        client, server = tls_start.context.client, tls_start.context.server
        assert server.address
        # For the host that was asked to be reached, whatever name the handshake says: nothing else may be vouched for.
        leaf = self._interception.leaf(server.address[0])
        context = net_tls.create_client_proxy_context(
            method=net_tls.Method.TLS_SERVER_METHOD,
            min_version=net_tls.Version.TLS1_2,
            max_version=net_tls.Version.UNBOUNDED,
            cipher_list=None,
            ecdh_curve=None,
            chain_file=None,
            alpn_select_callback=alpn_select_callback,
            request_client_cert=False,
            extra_chain_certs=(),
            dhparams=None,  # type: ignore[arg-type]  # elliptic curves only
        )
        tls_start.ssl_conn = SSL.Connection(context)
        tls_start.ssl_conn.use_certificate(x509.load_pem_x509_certificate(leaf.certificate))
        tls_start.ssl_conn.use_privatekey(load_pem_private_key(leaf.key, None))  # type: ignore[arg-type]
        tls_start.ssl_conn.set_app_data(AppData(client_alpn=client.alpn, server_alpn=server.alpn, http2=True))
        tls_start.ssl_conn.set_accept_state()
