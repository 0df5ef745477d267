"""sandboxd as another machine sees it: over a wire, through real TLS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ephemeral_certs import files
from ephemeral_certs.authority import Authority
from ephemeral_cli.host import certifying
from ephemeral_sandboxd.api.remote import HANDSHAKES_EACH

if TYPE_CHECKING:
    from conftest import Host, Network, Visitor

STAND_IN = "none: a stand-in"


@pytest.fixture
def good(host: Host) -> tuple[str, str]:
    """A certificate and a token that open the door."""
    name = f"good-{os.urandom(3).hex()}"
    return host.certificate(name), host.tokens.create(name)


@pytest.fixture(scope="module")
def stalled(visitor: Visitor, host: Host) -> list[str]:
    """As many connections as one address may have in their handshake, none of which ever says a word."""
    names = [f"stalled-{number}" for number in range(HANDSHAKES_EACH)]
    for name in names:
        visitor.do("hold", host=host.ip, port=host.port, plain=True, silent=True, source=host.neighbour, **{"as": name})
    return names


def test_who_stalls_the_handshake_keeps_only_himself_out(visitor: Visitor, host: Host, good: tuple[str, str], stalled: list[str]):
    assert "error" in visitor.do("raw", **host.to(*good, source=host.neighbour))
    assert visitor.do("raw", **host.to(*good))["status"] == 200


def test_a_machine_that_joined_sets_ephemeral_host_and_nothing_else(network: Network, host: Host, tmp_path: Path):
    command, code = [sys.executable, "-m", "ephemeral_cli"], "from ephemeral import Client, ExecutionRequest; print(Client().execute(ExecutionRequest(code='6 * 7')).result)"
    at_host, at_visitor = {**os.environ, "EPHEMERAL_STATE": str(host.state)}, {**os.environ, "EPHEMERAL_STATE": str(tmp_path)}
    invited = subprocess.run(
        [*command, "host", "invite", "desk", "--address", host.address, "--output", str(tmp_path / "desk.invite")], env=at_host, capture_output=True, text=True, check=True, timeout=60
    )
    digits = invited.stderr.rsplit(": ", 1)[1].strip()
    joined = subprocess.run(
        [*network.at(network.visitor), *command, "host", "join", str(tmp_path / "desk.invite")], env=at_visitor, input=digits + "\n", capture_output=True, text=True, check=True, timeout=60
    )
    assert f"Joined {host.address}" in joined.stdout
    assert f"export EPHEMERAL_HOST={host.address}" in joined.stdout
    ran = subprocess.run(
        [*network.at(network.visitor), sys.executable, "-c", code], env=at_visitor | {"EPHEMERAL_HOST": host.address}, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "42"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_both_clients_of_the_sdk_come_in(visitor: Visitor, host: Host, joined: Path, asynchronous: bool):
    assert visitor.do("sdk", state=str(joined), address=host.address, asynchronous=asynchronous) == {"isolation": STAND_IN}


def test_a_certificate_and_a_token_together_open_the_door(visitor: Visitor, host: Host, good: tuple[str, str]):
    assert visitor.do("raw", **host.to(*good))["status"] == 200


def until_read(visitor: Visitor, host: Host) -> None:
    """Wait until the host has read its files again: a connection whose certificate is revoked now is cut by who read that."""
    name = f"marker-{os.urandom(3).hex()}"
    visitor.do("hold", **host.to(host.certificate(name), path="/healthz", **{"as": name}))
    host.authority.revoke(name)
    assert visitor.do("closed", **{"as": name}) == {"closed": True}


def test_without_a_certificate_nobody_comes_in(visitor: Visitor, host: Host, good: tuple[str, str]):
    refused = visitor.do("raw", **host.to(None, good[1]))
    assert "certificate required" in refused["says"].lower().replace("_", " ")


def test_a_certificate_of_another_authority_is_refused(visitor: Visitor, host: Host, good: tuple[str, str], tmp_path: Path):
    other = Authority.create(tmp_path / "other", "another")
    files.write(tmp_path / "other.pem", other.issue_client("laptop").pem)
    assert "error" in visitor.do("raw", **host.to(str(tmp_path / "other.pem"), good[1]))


def test_an_expired_certificate_is_refused(visitor: Visitor, host: Host, good: tuple[str, str]):
    refused = visitor.do("raw", **host.to(host.certificate("late", days=-0.01), good[1]))
    assert "expired" in refused["says"].lower()


def test_a_revoked_certificate_is_refused_at_the_next_connection(visitor: Visitor, host: Host, good: tuple[str, str]):
    certificate = host.certificate("lost")
    assert visitor.do("raw", **host.to(certificate, good[1]))["status"] == 200
    visitor.do("hold", **host.to(certificate, good[1], **{"as": "lost"}))
    assert len(host.authority.revoke("lost")) == 1
    assert visitor.do("closed", **{"as": "lost"}) == {"closed": True}, "the open connection is cut, and by then the list was read"
    refused = visitor.do("raw", **host.to(certificate, good[1]))
    assert "revoked" in refused["says"].lower()


def test_the_servers_certificate_is_no_clients(visitor: Visitor, host: Host, good: tuple[str, str]):
    assert "error" in visitor.do("raw", **host.to(str(host.state / "tls" / "server.pem"), good[1]))


@pytest.mark.parametrize("kind", ["missing", "wrong", "revoked", "expired", "local", "too late"])
def test_the_right_certificate_with_no_valid_token_may_not_use_the_api(visitor: Visitor, host: Host, good: tuple[str, str], kind: str):
    name = f"{kind.replace(' ', '-')}-token"
    token = {
        "missing": lambda: None,
        "wrong": lambda: "eph_wrong",
        "revoked": lambda: host.tokens.create(name),
        "expired": lambda: host.tokens.create(name, days=-1),
        "local": lambda: (host.state / "token").read_text().strip(),
        "too late": lambda: host.tokens.create(name, use_within_seconds=-1),
    }[kind]()
    host.tokens.revoke(name)
    refused = visitor.do("raw", **host.to(good[0], token))
    assert refused["status"] == 401
    assert "On the host, type" in refused["answer"]


def test_a_token_for_other_machines_does_not_open_the_loopback_port(network: Network, host: Host, good: tuple[str, str]):
    code = f"import urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1:{host.local_port}/v1/host', headers={{'Authorization': 'Bearer {good[1]}'}})).status)"
    done = subprocess.run([*network.at(network.host), sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "401" in done.stderr


def test_the_loopback_port_is_not_reached_from_another_machine(visitor: Visitor, host: Host):
    assert visitor.do("raw", host=host.ip, port=host.local_port, plain=True)["error"] == "ConnectionRefusedError"


def test_tls_before_1_3_is_refused(visitor: Visitor, host: Host, good: tuple[str, str]):
    assert "version" in visitor.do("raw", **host.to(*good, old=True))["says"].lower()


def test_plain_http_is_refused(visitor: Visitor, host: Host, good: tuple[str, str]):
    answer = visitor.do("raw", **host.to(None, good[1], plain=True))
    assert "memory_budget_bytes" not in answer.get("answer", "")
    assert answer.get("status") is None


@pytest.mark.parametrize(("name", "status"), [("HOST", 200), ("HOST:443", 200), ("sandbox.test", 200), ("evil.example", 421), ("localhost", 421), ("127.0.0.1", 421), ("", 421)])
def test_the_host_header_names_the_certificate(visitor: Visitor, host: Host, good: tuple[str, str], name: str, status: int):
    for path in ("/v1/host", "/healthz"):
        assert visitor.do("raw", **host.to(*good, name=name.replace("HOST", host.ip), path=path))["status"] == status


@pytest.mark.parametrize(("origin", "status"), [("https://HOST", 200), ("http://HOST", 403), ("https://evil.example", 403), ("null", 403)])
def test_an_origin_must_be_ours(visitor: Visitor, host: Host, good: tuple[str, str], origin: str, status: int):
    name = f"{host.ip}:{host.port}"
    assert visitor.do("raw", **host.to(*good, name=name, headers={"Origin": origin.replace("HOST", name)}))["status"] == status


def test_a_browser_trades_its_token_for_a_cookie(visitor: Visitor, host: Host, good: tuple[str, str]):
    answer = visitor.do("raw", **host.to(good[0], path=f"/?token={good[1]}"))
    assert answer["status"] == 303
    cookie = next(line for line in answer["answer"].splitlines() if line.startswith("Set-Cookie: ")).removeprefix("Set-Cookie: ")
    assert {"HttpOnly", "Secure", "SameSite=Strict"} <= set(cookie.split("; "))
    assert good[1] not in cookie
    value = cookie.partition(";")[0]
    assert visitor.do("raw", **host.to(good[0], headers={"Cookie": value}))["status"] == 200
    assert visitor.do("raw", **host.to(good[0], headers={"Cookie": value[:-1] + "x"}))["status"] == 401
    assert visitor.do("raw", **host.to(good[0], path="/?token=eph_wrong"))["status"] == 403


def test_a_rotated_token_stays_valid_for_its_grace(visitor: Visitor, host: Host, good: tuple[str, str]):
    name = host.tokens.records()[-1].name
    second = host.tokens.rotate(name, grace_seconds=3600)
    for token in (good[1], second):
        assert visitor.do("raw", **host.to(good[0], token))["status"] == 200
    third = host.tokens.rotate(name)
    assert [visitor.do("raw", **host.to(good[0], token))["status"] for token in (good[1], second, third)] == [401, 401, 200]


def test_a_stream_is_cut_when_its_token_is_revoked(visitor: Visitor, host: Host, good: tuple[str, str]):
    assert visitor.do("hold", **host.to(*good, path="/v1/stream", **{"as": "stream"}))["status"] == 200
    host.tokens.revoke(host.tokens.records()[-1].name)
    assert visitor.do("closed", **{"as": "stream"}) == {"closed": True}


def test_a_new_server_certificate_is_shown_without_a_restart_and_open_connections_stay(visitor: Visitor, host: Host, good: tuple[str, str]):
    where = {"host": host.ip, "port": host.port, "ca": str(host.state / "tls" / "ca.pem"), "certificate": good[0]}
    before = visitor.do("serial", **where)["serial"]
    visitor.do("hold", **host.to(*good, **{"as": "kept"}))
    issued = host.authority.issue_server([host.ip, "sandbox.test"])
    files.write(host.state / "tls" / "server.pem", issued.pem)
    until_read(visitor, host)
    assert visitor.do("serial", **where)["serial"] == issued.record.serial != before
    assert visitor.do("again", **host.to(*good, **{"as": "kept"}))["status"] == 200
    visitor.do("drop", **{"as": "kept"})


def test_damaged_files_leave_the_door_as_it_was(visitor: Visitor, host: Host, good: tuple[str, str]):
    before = (host.state / "tls" / "crl.pem").read_bytes()
    files.write(host.state / "tls" / "crl.pem", "damaged")
    try:
        assert visitor.do("raw", **host.to(*good))["status"] == 200
    finally:
        files.write(host.state / "tls" / "crl.pem", before)


def test_nobody_is_waited_for_longer_than_a_handshake_may_take(visitor: Visitor, host: Host, stalled: list[str], good: tuple[str, str]):
    assert [visitor.do("closed", **{"as": name}) for name in stalled] == [{"closed": True}] * len(stalled)
    assert visitor.do("raw", **host.to(*good, source=host.neighbour))["status"] == 200


@pytest.mark.parametrize("trouble", ["not joined", "revoked", "expired", "another host's", "another name"])
def test_the_sdk_says_what_is_wrong_and_what_to_type(visitor: Visitor, host: Host, joined: Path, tmp_path: Path, trouble: str):
    place = joined / "hosts" / host.ip
    if trouble == "not joined":
        (place / "client.pem").unlink()
        words = ("no certificate for", "ephemeral host join")
    elif trouble == "revoked":
        host.authority.revoke("laptop")
        until_read(visitor, host)
        words = ("was revoked", "ephemeral host invite laptop")
    elif trouble == "expired":
        files.write(place / "client.pem", host.authority.issue_client("laptop", days=-0.01).pem)
        words = ("has expired", "ephemeral host invite laptop")
    elif trouble == "another host's":
        files.write(place / "ca.pem", Authority.create(tmp_path / "other", "another").pem)
        words = ("is not the host that this machine joined", "join it anew")
    else:
        certifying.certify(host.state, ["sandbox.test"])
        until_read(visitor, host)
        words = ("is not for", "ephemeral host certify --name")
    try:
        answer = visitor.do("sdk", state=str(joined), address=host.address)
    finally:
        certifying.certify(host.state, [host.ip, "sandbox.test"])
    assert answer["error"] == "Unauthorized"
    for word in words:
        assert word in answer["says"]
