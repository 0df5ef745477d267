"""Invitations: one file, opened by one code, for a while."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ephemeral_certs import invitation
from ephemeral_certs.errors import CertsError
from ephemeral_certs.invitation import Bundle, seal, unseal
from ephemeral_cli.errors import CommandError
from ephemeral_cli.host import certifying, inviting, joining

BUNDLE = Bundle("https://sandbox.example.com:8790", "laptop", "CA", "CERTIFICATE", "KEY", "TOKEN")


def test_the_code_opens_the_file_however_it_is_typed():
    content, code = seal(BUNDLE, 60)
    for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')}\n", code.replace("0", "o").replace("1", "l")):
        assert unseal(content, typed) == BUNDLE
    for secret in ("KEY", "TOKEN", "CERTIFICATE"):
        assert secret.encode() not in content


def test_nothing_else_opens_it():
    content, code = seal(BUNDLE, 60)
    for wrong in ("", "0000-0000-0000-0000", code[:-1], code + "0"):
        with pytest.raises(CertsError, match="The code does not open this invitation"):
            unseal(content, wrong)


@pytest.mark.parametrize("field", ["address", "client", "expires_at", "salt", "nonce", "sealed"])
def test_a_changed_file_does_not_open(field: str):
    content, code = seal(BUNDLE, 60)
    changed = json.loads(content)
    changed[field] = changed[field] + 1000 if field == "expires_at" else "AAAA" + changed[field][4:]
    with pytest.raises(CertsError):
        unseal(json.dumps(changed).encode(), code)


def test_an_old_invitation_says_what_to_type():
    content, code = seal(BUNDLE, -1)
    with pytest.raises(CertsError, match=r"too old.*ephemeral host invite laptop"):
        unseal(content, code)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"ephemeral_invitation": 2}', b'{"ephemeral_invitation": 1, "expires_at": "x"}', b"x" * (2 << 20)])
def test_a_file_that_is_no_invitation_is_told_from_one(content: bytes):
    with pytest.raises(CertsError, match="no invitation"):
        invitation.describe(content)


def test_an_address_that_the_certificate_does_not_name_is_refused(tmp_path: Path):
    certifying.certify(tmp_path, ["sandbox.example.com"])
    for address in ("https://other.example.com:8790", "http://sandbox.example.com:8790", "https://sandbox.example.com", "sandbox.example.com:8790", "https://[::"):
        with pytest.raises(CertsError):
            inviting.invite(tmp_path, "laptop", address=address, days=1, within_seconds=60)


def test_revoking_a_machine_that_was_never_invited_says_so(tmp_path: Path):
    certifying.certify(tmp_path, ["sandbox.example.com"])
    with pytest.raises(CertsError, match="ephemeral host status"):
        inviting.revoke(tmp_path, "nobody", but_newest=False)


def test_leaving_a_host_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_STATE", str(tmp_path / "here"))
    certifying.certify(tmp_path / "there", ["::1"])
    content, code = inviting.invite(tmp_path / "there", "laptop", days=1, within_seconds=60)
    address = joining.join(content, code)
    assert address == "https://[::1]:8790"
    assert joining.hosts() == [address]
    joining.set_token("[::1]", "eph_new")
    assert (tmp_path / "here/hosts/::1/token").read_text() == "eph_new\n"
    joining.leave(address)
    assert joining.hosts() == []
    with pytest.raises(CommandError, match="has not joined"):
        joining.leave(address)
