"""The ClientHellos of a real TLS library, and what somebody might make of them."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeral_sandboxd.egress import hello


def client_hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def with_extension(record: bytes, kind: int, content: bytes) -> bytes:
    """One more extension at the end of a hello."""
    extension = kind.to_bytes(2) + len(content).to_bytes(2) + content
    at = 5 + 4 + 2 + 32
    at += 1 + record[at]
    at += 2 + int.from_bytes(record[at:at + 2])
    at += 1 + record[at]
    extensions = record[at + 2:] + extension
    body = record[9:at] + len(extensions).to_bytes(2) + extensions
    return record[:3] + (4 + len(body)).to_bytes(2) + b"\x01" + len(body).to_bytes(3) + body


def named(name: bytes, kind: int = 0) -> bytes:
    one = bytes([kind]) + len(name).to_bytes(2) + name
    return len(one).to_bytes(2) + one


def test_the_server_name_is_read() -> None:
    record = client_hello("api.example.com")
    assert hello.needed(record) == len(record)
    assert hello.server_name(record) == "api.example.com"


def test_a_hello_without_a_name_has_none() -> None:
    assert hello.server_name(client_hello(None)) is None


def test_how_much_is_needed_is_known_from_the_first_five_bytes() -> None:
    record = client_hello("api.example.com")
    assert [hello.needed(record[:n]) for n in (0, 1, 4)] == [5, 5, 5]
    assert hello.needed(record[:5]) == len(record)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x", b"\x17\x03\x03\x00\x10", b"\x16\x03\x01\xff\xff", b"\x80\x2e\x01\x03\x01"])
def test_what_is_no_handshake_is_told_apart_at_once(data: bytes) -> None:
    with pytest.raises(hello.NotAHello):
        hello.needed(data)


def test_a_second_name_is_refused_wherever_it_stands() -> None:
    record = client_hello("api.example.com")
    with pytest.raises(hello.NotAHello, match="two servers"):
        hello.server_name(with_extension(record, hello.SERVER_NAME, named(b"evil.example")))
    both = named(b"a.example")[2:] + named(b"b.example")[2:]
    with pytest.raises(hello.NotAHello, match="two servers"):
        hello.server_name(with_extension(client_hello(None), hello.SERVER_NAME, len(both).to_bytes(2) + both))


def test_a_name_of_another_kind_and_an_encrypted_one_are_refused() -> None:
    with pytest.raises(hello.NotAHello, match="unknown kind"):
        hello.server_name(with_extension(client_hello(None), hello.SERVER_NAME, named(b"a.example", kind=7)))
    with pytest.raises(hello.NotAHello, match="encrypted"):
        hello.server_name(with_extension(client_hello("api.example.com"), hello.ENCRYPTED_HELLO, b"\x00" * 32))


def test_a_hello_that_is_spread_over_two_records_is_refused() -> None:
    record = client_hello("api.example.com")
    first = record[:3] + (40).to_bytes(2) + record[5:45]
    with pytest.raises(hello.NotAHello, match="cut short"):
        hello.server_name(first)


@given(st.integers(min_value=0), st.integers(0, 255), st.integers(min_value=0))
def test_a_damaged_hello_is_read_or_refused_and_nothing_else(at: int, value: int, cut: int) -> None:
    record = bytearray(HELLO)
    record[at % len(record)] = value
    with contextlib.suppress(hello.NotAHello):
        hello.server_name(bytes(record[:cut % len(record) + 1]))


HELLO = client_hello("api.example.com")
