"""The way of events to the predictor: never blocks, never raises, loses only the oldest, and counts."""

from __future__ import annotations

import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ephemeral.events import TEXT_LIMIT, EventSink

PATIENCE = 30.0


class Predictor(socketserver.ThreadingUnixStreamServer):
    """Records events; ``drop_idle`` closes each connection after one answer, ``status`` is what it answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.events: list[dict] = []
        self.posts = 0
        self.status = 204
        self.drop_idle = False
        self.gate = threading.Event()
        self.gate.set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        Path(self.server_address).unlink(missing_ok=True)


class Handler(BaseHTTPRequestHandler):
    server: Predictor
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert self.path == "/v1/events"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.gate.wait(PATIENCE)
        self.server.posts += 1
        if self.server.status < 300:
            self.server.events += [json.loads(line) for line in body.splitlines()]
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0") if self.server.status >= 300 else None
        self.end_headers()
        self.close_connection = self.server.drop_idle

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictor.sock"


@pytest.fixture
def predictor(path: Path) -> Iterator[Predictor]:
    server = Predictor(path)
    yield server
    server.gate.set()
    server.stop()


@pytest.fixture
def make_sink(path: Path) -> Iterator[Callable[..., EventSink]]:
    sinks: list[EventSink] = []

    def make(**options: int) -> EventSink:
        sinks.append(EventSink(f"unix:{path}", **options))
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def texts(predictor: Predictor) -> list[str]:
    return [event["text"] for event in predictor.events]


def test_events_arrive_in_order_from_several_threads(predictor, make_sink) -> None:
    sink = make_sink()

    def talk(name: str) -> None:
        for number in range(200):
            sink.put({"session": name, "text": str(number)})

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    until(lambda: sink.sent == 600)
    for name in "abc":
        assert [event["text"] for event in predictor.events if event["session"] == name] == [str(n) for n in range(200)]
    assert sink.dropped == 0


def test_what_piles_up_goes_out_together(predictor, make_sink) -> None:
    predictor.gate.clear()
    sink = make_sink()
    for number in range(100):
        sink.put({"text": str(number)})
    predictor.gate.set()
    until(lambda: sink.sent == 100)
    assert texts(predictor) == [str(number) for number in range(100)]
    assert predictor.posts < 10


def test_events_wait_for_a_predictor_that_comes_later(path, make_sink) -> None:
    sink = make_sink()
    for number in range(10):
        sink.put({"text": str(number)})
    predictor = Predictor(path)
    until(lambda: sink.sent == 10)
    assert texts(predictor) == [str(number) for number in range(10)]
    predictor.stop()


def test_a_predictor_that_restarts_is_found_again(path, make_sink) -> None:
    sink = make_sink()
    for life in ("one", "two", "three"):
        predictor = Predictor(path)
        predictor.drop_idle = True
        sink.put({"text": life})
        until(lambda predictor=predictor, life=life: texts(predictor) == [life])
        predictor.stop()
    until(lambda: sink.sent == 3)


def test_an_idle_connection_that_was_closed_costs_no_event(predictor, make_sink) -> None:
    predictor.drop_idle = True
    sink = make_sink()
    for number in range(5):
        sink.put({"text": str(number)})
        until(lambda number=number: sink.sent == number + 1)
    assert texts(predictor) == list("01234")


def test_without_a_predictor_only_the_latest_are_kept_and_the_rest_counted(path, make_sink) -> None:
    sink = make_sink(limit=50)
    for number in range(1000):
        sink.put({"text": str(number)})
    predictor = Predictor(path)
    until(lambda: sink.sent + sink.dropped == 1000)
    assert texts(predictor)[-50:] == [str(number) for number in range(950, 1000)]
    assert sink.dropped > 0
    predictor.stop()


def test_much_text_is_bounded_too(make_sink) -> None:
    sink = make_sink(limit_characters=10_000)
    for _ in range(100):
        sink.put({"text": "x" * 1000})
    assert sink._characters <= 10_000
    assert sink.dropped >= 100 - 10 - 10  # some may be with the thread


def test_one_long_text_is_cut(predictor, make_sink) -> None:
    sink = make_sink()
    event = {"text": "é" * (TEXT_LIMIT + 5)}
    sink.put(event)
    until(lambda: sink.sent == 1)
    assert len(texts(predictor)[0]) == TEXT_LIMIT
    assert len(event["text"]) == TEXT_LIMIT + 5


def test_refused_events_are_counted_not_repeated(predictor, make_sink) -> None:
    predictor.status = 500
    sink = make_sink()
    sink.put({"text": "a"})
    until(lambda: sink.dropped == 1)
    predictor.status = 204
    sink.put({"text": "b"})
    until(lambda: sink.sent == 1)
    assert texts(predictor) == ["b"]


def test_closing_sends_what_waits_and_later_events_are_dropped(predictor, make_sink) -> None:
    sink = make_sink()
    for number in range(20):
        sink.put({"text": str(number)})
    sink.close(timeout=PATIENCE)
    assert len(predictor.events) == 20
    sink.put({"text": "late"})
    assert sink.dropped == 1


def test_closing_does_not_wait_for_a_dead_predictor(make_sink) -> None:
    sink = make_sink()
    sink.put({"text": "a"})
    sink.close(timeout=PATIENCE)
    until(lambda: sink.dropped == 1)


def test_a_forked_child_sends_by_itself(predictor, make_sink) -> None:
    sink = make_sink()
    sink.put({"text": "parent"})
    until(lambda: sink.sent == 1)
    child = os.fork()
    if child == 0:
        sink.put({"text": "child"})
        sink.close(timeout=PATIENCE)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: texts(predictor) == ["parent", "child"])


def test_an_address_that_is_no_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="write unix:/path"):
        EventSink("http://127.0.0.1:1")
