"""Frames on a wire, without a sandbox: what is believed, and what ends the conversation."""

import asyncio
import os
import socket
import struct

import pytest

from ephemeral_sandboxd.runtimes.attach import open_channel
from ephemeral_sandboxd.runtimes.frames import LARGEST_FRAME_BYTES, BadFrame, Channel


@pytest.fixture
async def pipes():
    """A channel, and the guest's ends of its pipes: (channel, what the guest reads, what it writes)."""
    guest_in, our_out = os.pipe()
    our_in, guest_out = os.pipe()
    channel = await Channel.open(our_in, our_out)
    ends = {guest_in, guest_out}
    yield channel, guest_in, guest_out, ends
    channel.close()
    for descriptor in ends:
        os.close(descriptor)
    await asyncio.sleep(0)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


async def test_what_is_sent_arrives_as_it_was(pipes):
    channel, guest_in, guest_out, _ = pipes
    channel.send({"op": "x", "text": "ä\U0001f600\0"})
    data = os.read(guest_in, 65536)
    os.write(guest_out, data)
    assert await channel.receive() == {"op": "x", "text": "ä\U0001f600\0"}


async def test_a_frame_in_many_pieces_is_one_frame(pipes):
    channel, _, guest_out, _ = pipes
    receiving = asyncio.create_task(channel.receive())
    for byte in framed(b'{"a": [1, 2]}') + framed(b'{"b": 1}'):
        os.write(guest_out, bytes([byte]))
        await asyncio.sleep(0)
    assert await receiving == {"a": [1, 2]}
    assert await channel.receive() == {"b": 1}


@pytest.mark.parametrize(("said", "problem"), [
    (struct.pack(">I", LARGEST_FRAME_BYTES + 1), f"a frame of {LARGEST_FRAME_BYTES + 1} bytes"),
    (framed(b"nope"), "not JSON"),
    (framed(b""), "not JSON"),
    (framed(b"\xff\xfe"), "not JSON"),
    (framed(b'{"text": "\\ud800"}'), "not JSON"),
    (framed(b"[" * 60_000), "not JSON"),
    (framed(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    (framed(b"[1]"), "not an object"),
    (framed(b"null"), "not an object"),
], ids=["too long", "no JSON", "empty", "no text", "half a character", "deep", "huge number", "a list", "null"])
async def test_a_frame_that_is_none_of_ours_is_refused(pipes, said, problem):
    channel, _, guest_out, _ = pipes
    os.write(guest_out, said)
    with pytest.raises(BadFrame, match=problem):
        await channel.receive()


async def test_an_escaped_backslash_before_a_u_is_no_half_character(pipes):
    channel, _, guest_out, _ = pipes
    os.write(guest_out, framed(b'{"text": "\\\\ud800 \\ud83d\\ude00"}'))
    assert await channel.receive() == {"text": "\\ud800 \U0001f600"}


async def test_a_pipe_that_ends_within_a_frame_is_an_end(pipes):
    channel, _, guest_out, ends = pipes
    os.write(guest_out, struct.pack(">I", 100) + b"{")
    os.close(guest_out)
    ends.remove(guest_out)
    with pytest.raises(EOFError):
        await channel.receive()


async def test_closing_lets_go_of_a_pipe_that_nobody_reads(pipes):
    channel, _, guest_out, _ = pipes
    os.set_blocking(guest_out, False)
    try:
        while True:  # until the channel has stopped reading and the pipe is full
            for _ in range(100):
                os.write(guest_out, bytes(65536))
                await asyncio.sleep(0.001)
    except BlockingIOError:
        pass
    channel.close()
    await asyncio.sleep(0.01)
    with pytest.raises(BrokenPipeError):
        os.write(guest_out, bytes(65536))


# ------------------------------------------------------------------------------------------------- an engine's attach socket


def piece(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


async def test_an_engines_stream_is_taken_apart():
    ours, engine = socket.socketpair()
    channel, attached = await open_channel(ours)
    with engine:
        frame = framed(b'{"op": "ready"}')
        said = piece(2, b"a warning\n") + piece(1, frame[:7]) + piece(1, b"") + piece(2, b"more\n") + piece(1, frame[7:])
        for start in range(0, len(said), 3):
            engine.send(said[start : start + 3])
            await asyncio.sleep(0)
        assert await channel.receive() == {"op": "ready"}
        assert attached.words == "a warning\nmore"
        channel.send({"op": "x"})
        assert await asyncio.to_thread(engine.recv, 100) == framed(b'{"op": "x"}')
    with pytest.raises(EOFError):
        await channel.receive()
    channel.close()


async def test_only_the_last_words_of_stderr_are_kept():
    ours, engine = socket.socketpair()
    channel, attached = await open_channel(ours)
    with engine:
        engine.sendall(piece(2, b"x" * 10_000 + b"the end") + piece(1, framed(b"{}")))
        assert await channel.receive() == {}
        assert len(attached.words) == 2000
        assert attached.words.endswith("the end")
    channel.close()
