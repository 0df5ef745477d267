"""The way out: what a sandbox's code may reach over HTTP and HTTPS, where its session was granted domains.

    guest ─net_ frames▶ tunnel ─bytes▶ proxy ─rules, addresses▶ the internet

Every byte that comes out of a sandbox is hostile. Whatever is not on the list is refused, and so is every address that is not public, even
when an allowed name leads to it. TLS is carried unopened: which path, and which Host inside it, the server alone sees; that the handshake names the
host that was asked for is checked, and one that hides its name (ECH) is refused.
"""

from ephemeral_sandboxd.egress.records import EgressRecord
from ephemeral_sandboxd.egress.rules import parse_domains
from ephemeral_sandboxd.egress.tunnel import Egress

__all__ = ["Egress", "EgressRecord", "parse_domains"]
