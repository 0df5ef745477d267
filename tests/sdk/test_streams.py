"""The readers of a conversation's bytes, each tried with its input cut at every place it can be cut."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams import encodings
from ephemeral.streams.json_string import CODE_KEYS, CodeArguments
from ephemeral.streams.sse import SSEReader

# ------------------------------------------------------------------------------------------------------------ sse

TRACES = {
    "one event": (b"data: a\n\n", [("", "a")]),
    "lines of every ending": (b"data: a\r\ndata: b\r\rdata: c\n\r\n", [("", "a\nb"), ("", "c")]),
    "names, comments and unknown fields": (
        b": ping\n\nevent: x\nid: 7\nretry: 9\ndata:a\n\ndata:  b\n\n",
        [("x", "a"), ("", " b")],
    ),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
    "no data, no event": (b"event: x\n\n\n\ndata\n\n", [("", "")]),
    "characters of several bytes": ("data: é🐍\n\n".encode(), [("", "é🐍")]),
    "broken characters": (b"data: \xff\n\n", [("", "\ufffd")]),
    "a last event without its blank line": (b"data: a\n\ndata: b", [("", "a"), ("", "b")]),
}


@pytest.mark.parametrize("name", TRACES)
def test_server_sent_events_read_the_same_however_they_are_cut(name) -> None:
    data, expected = TRACES[name]
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            reader = SSEReader()
            events = [*reader.feed(data[:first]), *reader.feed(data[first:second]), *reader.feed(data[second:])]
            assert [*events, *reader.close()] == expected


def test_an_event_too_large_is_dropped_and_counted_and_the_next_one_read() -> None:
    data = b"data: " + b"x" * 200 + b"\ndata: y\n\ndata: fine\n\n"
    for cut in range(len(data)):
        reader = SSEReader(limit_bytes=100)
        assert [*reader.feed(data[:cut]), *reader.feed(data[cut:])] == [("", "fine")]
        assert reader.oversized == 1


def test_a_line_without_an_end_does_not_grow() -> None:
    reader = SSEReader(limit_bytes=1000)
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []
    assert sum(map(len, reader._line)) <= 1000


# ---------------------------------------------------------------------------------------------------- json strings


def read(pieces: list[str]) -> tuple[list[str], CodeArguments]:
    """The strings that were completed, and the reader."""
    reader = CodeArguments()
    strings, current = [], ""
    for piece in pieces:
        for what, text in reader.feed(piece):
            text.encode()
            if what == "done":
                strings.append(current)
                current = ""
            else:
                current += text
    return strings, reader


DOCUMENTS = {
    "plain": ('{"code": "print(1)"}', ["print(1)"]),
    "escapes": (r'{"code":"a\n\"b\"\\ \/\t\b\f\r\u00e9"}', ['a\n"b"\\ /\t\b\f\ré']),
    "surrogate pairs": (r'{"code": "\ud83d\ude00 and 🐍"}', ["😀 and 🐍"]),
    "lonely surrogates": (r'{"code": "\ud83d \ude00 \ud83d"}', ["\ufffd \ufffd \ufffd"]),
    "not the first key": ('{"a": 1, "b": [true, {"code": "no"}], "c": "code", "code": "yes"}', ["yes"]),
    "only at the top": ('{"x": {"code": "no", "y": ["code", "no"]}, "z": 1}', []),
    "several keys": ('{"code": "one", "input": "two"}', ["one", "two"]),
    "a key written in escapes": (r'{"c\u006fde": "yes"}', ["yes"]),
    "not a string": ('{"code": ["a"], "source": null, "cmd": 3}', []),
    "empty": ('{"code": ""}', [""]),
    "braces inside strings": ('{"a": "}{][", "code": "d = {}"}', ["d = {}"]),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_in_arguments_reads_the_same_however_it_is_cut(name) -> None:
    document, expected = DOCUMENTS[name]
    for cut in range(len(document) + 1):
        assert read([document[:cut], document[cut:]])[0] == expected
    strings, reader = read(list(document))
    assert strings == expected
    assert not reader.malformed


def test_code_grows_with_every_piece() -> None:
    reader = CodeArguments()
    assert reader.feed('{"code": "import num') == [("code", "import num")]
    assert reader.feed("py\\") == [("code", "py")]
    assert reader.feed("nx") == [("code", "\nx")]
    assert reader.feed('"}') == [("done", "")]


@pytest.mark.parametrize(
    "text", ["", "[", "]", '"code"', "nonsense", '{"code": "\\x"}', '{"code": "\\u12g4"}', "}{", '{"code": "a"}]]]']
)
def test_arguments_that_are_no_json_object_end_quietly(text) -> None:
    read(list(text))


@settings(database=None, deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from([*CODE_KEYS, "other"]), st.text(), max_size=3), st.integers(1, 9), st.booleans())
def test_any_code_survives_any_cutting(arguments, size, ascii_only) -> None:
    document = json.dumps(arguments, ensure_ascii=ascii_only)
    strings, reader = read([document[start : start + size] for start in range(0, len(document), size)])
    assert strings == [text for key, text in arguments.items() if key in CODE_KEYS]
    assert not reader.malformed


def test_a_key_without_an_end_does_not_grow() -> None:
    reader = CodeArguments()
    reader.feed('{"')
    for _ in range(1000):
        reader.feed("k" * 1000)
    assert len("".join(reader._decoded)) <= 1000


# ------------------------------------------------------------------------------------------------------- encodings

PLAIN = "data: wörter 🐍\n\n".encode() * 50


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("", PLAIN),
        ("identity", PLAIN),
        ("gzip", gzip.compress(PLAIN)),
        ("X-GZIP", gzip.compress(PLAIN[:99]) + gzip.compress(PLAIN[99:])),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)[2:-4]),
        ("deflate, gzip", gzip.compress(zlib.compress(PLAIN))),
    ],
)
def test_a_body_decodes_however_it_is_cut(coding, encoded) -> None:
    for size in (1, 2, 3, 17, len(encoded)):
        decode = encodings.decoder(coding)
        assert decode is not None
        assert b"".join(decode(encoded[start : start + size]) for start in range(0, len(encoded), size)) == PLAIN


def test_an_unknown_coding_has_no_decoder_unless_one_is_given() -> None:
    assert encodings.decoder("br") is None
    assert encodings.decoder("reverse", {"reverse": lambda: lambda data: data[::-1]})(b"ab") == b"ba"


def test_a_bomb_is_refused() -> None:
    decode = encodings.decoder("gzip")
    bomb = gzip.compress(bytes(encodings.LIMIT_BYTES + 1))
    with pytest.raises(encodings.TooLarge):
        decode(bomb)
