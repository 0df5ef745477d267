"""Certificates and the list of those that were revoked."""

from __future__ import annotations

import stat
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ephemeral_certs import authority, files
from ephemeral_certs.authority import Authority
from ephemeral_certs.errors import CertsError
from ephemeral_cli.host import certifying


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "tls", "test")


def verified(directory: Path, certificate: bytes, purpose: str) -> str:
    """What OpenSSL's own command says of it, revocation list included."""
    (directory / "leaf.pem").write_bytes(certificate)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip()


def test_servers_and_clients_are_not_each_other(ours: Authority):
    server, client = ours.issue_server(["Sandbox.Example.com", "203.0.113.7", "[2001:db8::7]"]), ours.issue_client("laptop")
    assert server.record.names == ("sandbox.example.com", "203.0.113.7", "2001:db8::7") == authority.server_names(server.pem)
    assert verified(ours.directory, server.certificate, "sslserver").endswith("OK")
    assert verified(ours.directory, client.certificate, "sslclient").endswith("OK")
    assert "error" in verified(ours.directory, server.certificate, "sslclient")
    assert "error" in verified(ours.directory, client.certificate, "sslserver")


def test_a_client_is_named_by_a_uri_and_has_ninety_days(ours: Authority):
    issued = ours.issue_client("laptop")
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier) == ["ephemeral:client/laptop"]
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert 89 < issued.record.days_left(time.time()) <= 90
    assert certificate.serial_number.bit_length() > 100


def test_revoking_voids_the_certificates_of_that_name_only(ours: Authority):
    first, second, other = (ours.issue_client(name) for name in ("laptop", "laptop", "desk"))
    assert [record.serial for record in ours.revoke("laptop", but_newest=True)] == [first.record.serial]
    assert "revoked" in verified(ours.directory, first.certificate, "sslclient")
    assert verified(ours.directory, second.certificate, "sslclient").endswith("OK")
    ours.revoke("laptop")
    assert authority.revoked_serials((ours.directory / "crl.pem").read_bytes()) == {first.record.serial, second.record.serial}
    assert verified(ours.directory, other.certificate, "sslclient").endswith("OK")
    assert ours.revoke("laptop") == []


def test_an_authority_may_vouch_only_for_what_it_is_permitted(tmp_path: Path):
    bound = Authority.create(tmp_path / "bound", "bound", permitted=["example.com", "203.0.113.7"])
    assert verified(bound.directory, bound.issue_server(["api.example.com", "203.0.113.7"]).certificate, "sslserver").endswith("OK")
    assert "permitted subtree violation" in verified(bound.directory, bound.issue_server(["bank.example.org"]).certificate, "sslserver")


def test_all_of_it_is_readable_by_its_owner_only(ours: Authority):
    ours.issue_server(["a.example"])
    assert stat.S_IMODE(ours.directory.stat().st_mode) == 0o700
    for file in ours.directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert not list(ours.directory.glob(".*")), "nothing half written is left"


def test_nothing_is_issued_over_a_damaged_record(ours: Authority):
    (ours.directory / "issued.json").write_text("{")
    with pytest.raises(CertsError, match=r"issued.json cannot be read.*backup"):
        ours.issue_client("laptop")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../x", "x" * 61, "ü"])
def test_a_name_that_is_none_is_refused(ours: Authority, name: str):
    with pytest.raises(CertsError):
        ours.issue_client(name)
    with pytest.raises(CertsError):
        ours.issue_server([f"{name} x"])


def test_the_servers_certificate_is_renewed_when_it_is_due_and_only_then(tmp_path: Path):
    first, done = certifying.certify(tmp_path, ["a.example", "203.0.113.7"], 9000)
    assert len(done) == 2
    assert (first.address, first.names) == ("https://a.example:9000", ("a.example", "203.0.113.7"))
    assert certifying.certify(tmp_path) == (first, [])
    due = Authority.open(tmp_path / "tls").issue_server(first.names, days=29)
    files.write(tmp_path / "tls" / "server.pem", due.pem)
    renewed, done = certifying.certify(tmp_path)
    assert (renewed.names, renewed.port, len(done)) == (first.names, 9000, 1)
    assert renewed.days_left > 89
    assert certifying.certify(tmp_path, ["b.example"])[0].names == ("b.example",)
