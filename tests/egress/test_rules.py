"""Names against the allow list, addresses against what is not public."""

from __future__ import annotations

import ipaddress

import pytest

from ephemeral_sandboxd.egress import parse_domains
from ephemeral_sandboxd.egress.rules import NoHost, Refusal, check_address, check_name, normal, parse
from ephemeral_sandboxd.errors import BadRequest


@pytest.mark.parametrize(("text", "written"), [
    ("api.example.com", "api.example.com"),
    ("  API.Example.COM. ", "api.example.com"),
    ("*.example.com", "*.example.com"),
    ("api.example.com:8443", "api.example.com:8443"),
    ("*.example.com:8443", "*.example.com:8443"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("*.bücher.example", "*.xn--bcher-kva.example"),
    ("faß.example", "xn--fa-hia.example"),
    ("93.184.215.14", "93.184.215.14"),
    ("[2606:2800:21F:0::1]:443", "[2606:2800:21f::1]:443"),
    ("2606:2800:21f::1", "[2606:2800:21f::1]"),
])
def test_an_entry_is_written_in_its_normal_form(text: str, written: str) -> None:
    assert parse_domains([text]) == [written]
    assert parse_domains([written]) == [written]


def test_entries_are_sorted_and_each_stands_once() -> None:
    assert parse_domains(["b.example", "a.example", "B.example"]) == ["a.example", "b.example"]


@pytest.mark.parametrize("text", [
    "", ".", "*", "*.com", "*.", "a.*.com", "*api.example.com", "**.example.com", "http://example.com", "example.com/x", "user@example.com",
    "example.com:", "example.com:0", "example.com:65536", "example.com:-1", "example.com:٣", "example.com:http", "exa mple.com", "example..com", ".example.com",
    "-example.com", "example.com..", "a" * 64 + ".com", ".".join(["abcdefgh"] * 30), "*.127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "1.2.3.4.5",
    "127。0。0。1", "fe80::1%eth0", "[::1", "[]", "[example.com]", "example.com\n", "\x00", "𝟏𝟐𝟕.0.0.1:80:80",
    "127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "::ffff:10.0.0.1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
])
def test_what_is_no_domain_or_never_reached_is_refused_with_what_to_write(text: str) -> None:
    if text == "example.com\n":
        assert parse_domains([text]) == ["example.com"]  # white space around is nothing
        return
    with pytest.raises(BadRequest) as caught:
        parse_domains([text])
    assert "api.example.com" in caught.value.hint


@pytest.mark.parametrize("host", [
    "2130706433", "0x7f000001", "0X7F000001", "017700000001", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "127.0.0.1..", "0.0.0.0",
    "::1", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[fe80::1%25eth0]", "fe80::1%eth0", "①②⑦.⓪.⓪.①", "127．0．0．1", "localhost", "localhost.",
    "api.example.com.evil.net", "evilexample.com", "example.com", "api-example.com", "xapi.example.com", "api.example.com\x00.evil.net", "api.example.com%00",
])
def test_no_spelling_of_another_host_passes_for_an_allowed_one(host: str) -> None:
    allow = [parse("api.example.com"), parse("*.api.example.com")]
    try:
        name = normal(host)
    except NoHost:
        return
    with pytest.raises(Refusal) as caught:
        check_name(allow, name, 443)
    assert "network=[" in str(caught.value)


def test_a_wildcard_covers_the_names_below_it_at_any_depth_but_not_itself() -> None:
    allow = [parse("*.example.com")]
    check_name(allow, "a.example.com", 443)
    check_name(allow, "b.a.example.com", 80)
    for host in ("example.com", "aexample.com", "example.com.evil.net"):
        with pytest.raises(Refusal):
            check_name(allow, host, 443)


def test_only_the_web_ports_are_open_unless_an_entry_names_another() -> None:
    for port in (80, 443):
        check_name([parse("api.example.com")], "api.example.com", port)
    with pytest.raises(Refusal, match=r'port 22 of api\.example\.com .* network=\["api\.example\.com:22"\]'):
        check_name([parse("api.example.com")], "api.example.com", 22)
    check_name([parse("api.example.com:8443")], "api.example.com", 8443)
    with pytest.raises(Refusal, match="port 443"):
        check_name([parse("api.example.com:8443")], "api.example.com", 443)


@pytest.mark.parametrize("address", [
    "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "192.0.0.9", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "fd12::1", "ff02::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8",
    "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1",
    "2001:0:a9fe:a9fe::1", "2001::1",
])
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refusal, match="not public") as caught:
        check_address(address)
    assert address not in str(caught.value), "a sandbox is not told where the host's names lead"
    assert address in caught.value.detail


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::8.8.8.8"])
def test_a_public_address_passes(address: str) -> None:
    check_address(address)


def test_only_what_a_test_permits_beyond_that_passes() -> None:
    permit = [ipaddress.ip_network("127.0.0.0/8")]
    check_address("127.0.0.1", permit)
    for address in ("10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"):
        with pytest.raises(Refusal):
            check_address(address, permit)
